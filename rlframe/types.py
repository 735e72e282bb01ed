"""Every value that crosses a process, in order of appearance.

Each stage of the loop takes one of these and returns the next: nothing is filled in later, so a value
that exists is complete. Shapes: G completions of a prompt, L tokens of a sequence, T packed tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Message: TypeAlias = dict[str, str]  # {"role": "user", "content": "What is 2 + 3?"}
FinishReason: TypeAlias = Literal["stop", "length"]
VerdictStatus: TypeAlias = Literal["scored", "unparseable", "timeout", "failed"]

OWN_CHOICE = -1  # in place of a recorded expert: the learner's router chooses
PACKED_ATTENTION = "rlframe_packed"  # the implementation of attention that knows shared prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What a source of prompts knows: a conversation that ends with the user, and what a right answer is.

    >>> Problem(id="arithmetic/7", messages=[{"role": "user", "content": "What is 2 + 3?"}],
    ...         reference="5", task="math").reference
    '5'
    """

    id: str  # unique in its source, and tells a person where it is: "train.jsonl:7"
    messages: list[Message]
    reference: str  # what rewards compare with; its meaning is the task's
    task: str  # decides which rewards speak


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A problem as the policy sees it: the chat template applied and tokenized. One id is sampled once."""

    id: str  # unique in a run: the problem's id and its epoch
    messages: list[Message]
    token_ids: list[int]  # [L]
    reference: str
    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How completions are drawn. The same prompt, seed and weights give the same completions."""

    completions: int  # G, of each prompt
    max_tokens: int
    temperature: float  # > 0
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSpan:
    """Tokens [start, end) of a completion were drawn by policy `version`."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the engine drew after a prompt, with what it knew while drawing."""

    token_ids: list[int]  # [L]
    logprobs: list[float]  # [L] of the distribution that was sampled from (temperature and top-p applied)
    versions: list[VersionSpan]  # contiguous over [L]; empty only when no token was drawn
    text: str
    finish_reason: FinishReason
    cached_tokens: int = 0  # of the prompt: the engine had their keys and values already
    routed_experts: np.ndarray | None = None  # [prompt + L - 1, layers, k] of tokens fed; None: the engine didn't tell


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledCompletion:
    """A completion as it leaves the engine: one of its group's, with its place there."""

    prompt_id: str
    index: int  # in [0, G)
    completion: Completion


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """All completions of one prompt: what a group-relative advantage compares."""

    prompt: Prompt
    completions: list[Completion]  # [G]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One reward's word on one completion.

    What the model caused is a score (a wrong or unparseable answer, one that no verifier finishes); what we
    caused (`failed`: a bug, a dead worker) has none, so that our failures never teach the policy anything.

    >>> Verdict(score=1.0, status="scored", seconds=0.001, detail="5 = 5").score
    1.0
    """

    score: float | None  # None exactly when status is "failed"
    status: VerdictStatus
    seconds: float
    detail: str

    def __post_init__(self) -> None:
        if (self.score is None) != (self.status == "failed"):
            raise ValueError(
                f"a verdict has no score exactly when it failed, not score={self.score} with status={self.status!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroup:
    """A rollout group and its rewards."""

    group: RolloutGroup
    rewards: list[float | None]  # [G] weighted sum; None: no verdict, left out of baseline and loss
    verdicts: dict[str, list[Verdict]]  # reward name -> [G], before weighting


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSample:
    """One sequence (prompt and completion) with everything its loss needs, token by token.

    Entry t speaks of token t, given the tokens before it; prompt tokens have weight 0.
    """

    prompt_id: str  # samples of one id begin with the same prompt
    prompt_tokens: int  # in [0, L): how many tokens that is
    token_ids: np.ndarray  # [L] int32
    rollout_logprobs: np.ndarray  # [L] float32
    advantages: np.ndarray  # [L] float32
    loss_weights: np.ndarray  # [L] float32; summed over a whole step's tokens they make the loss's mean
    routed_experts: np.ndarray | None = None  # [at most L, layers, k] of the first tokens; None: not recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBatch:
    """Sequences end to end without padding, on the learner's device.

    Those that begin alike stand together, and what is alike once, in the first of them: the others begin with the token
    after it, at the position after it (`learner/layout.py`).
    """

    token_ids: Tensor  # [T] int64
    rollout_logprobs: Tensor  # [T] float32, of the engine
    old_logprobs: Tensor  # [T] float32: what ratios are against; the engine's, or the learner's before the step
    ref_logprobs: Tensor | None  # [T] float32, of the reference policy; None where no loss asks for it
    advantages: Tensor  # [T] float32
    loss_weights: Tensor  # [T] float32
    sequence_ids: Tensor  # [T] int64, 0, 0, ..., 1, 1, ...
    position_ids: Tensor  # [T] int64, from 0 in each sequence, or from the length of what it continues
    routed_experts: Tensor | None = None  # [T, layers, k] int16 to go by, OWN_CHOICE where not recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """The learner's word on one optimizer step."""

    policy_version: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An engine's word on new weights. It goes on drawing only with what the learner holds, by the checksums."""

    stall_s: float  # from the pause of what was in flight until it went on
    differing: list[str]  # tensors whose checksums did not hold; if any, the engine stays paused
