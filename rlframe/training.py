"""Values of training that cross process boundaries: samples, packed batches, and what learner and engines report.

A value is complete when it exists, as the values of `types.py` are. Shapes: L tokens of a sequence, T packed tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from rlframe.record.frames import Location
    from rlframe.types import FinishReason, RewardTerm, Verdict, VersionSpan

# A learner's model sees the sequences of a micro-batch end to end, a common prefix once (shared); end to end (whole);
# or each in a row of its own, padded to the longest (padded).
Packing: TypeAlias = Literal["shared", "whole", "padded"]

UNRECORDED_EXPERT = -1  # in `routed_experts` where no expert was recorded: the router chooses
PACKED_ATTENTION = "rlframe_packed"  # our attention implementation, which knows shared prefixes


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceSize:
    """The size of a training sequence: a path of a trajectory."""

    prompt_id: str  # sequences with the same id begin with the same `prefix_tokens` tokens
    prefix_tokens: int  # in [0, tokens)
    tokens: int  # L
    # Ranges of the trajectory's sampled tokens, counted turn after turn, that this sequence trains on: [(0, L)] of a
    # chain that samples L tokens.
    trained: list[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryRecord:
    """A trajectory in numbers."""

    sampled_tokens: int
    finish_reason: FinishReason  # of the last completion
    versions: list[VersionSpan]  # of the sampled tokens, turn after turn; offsets count within each turn
    cached_tokens: int  # prompt tokens whose keys and values the engine already had
    sequences: list[SequenceSize]  # one for each path
    token_reward: float | None = None  # sum of the rewards of single tokens, which ranks add to the advantage


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRecord:
    """A scored group in numbers, under 1 KB a trajectory, and the reference to its tokens and texts.

    The driver and the algorithms see records. Ranks and episode workers fetch the body.
    """

    prompt_id: str
    prompt_tokens: int
    worker: str  # name of the episode worker that made the group
    body: Any  # reference to the `ScoredGroup`
    trajectories: list[TrajectoryRecord]  # [G]
    rewards: list[float | None]  # [G] weighted sums; None: no verdict, excluded from baseline and loss
    verdicts: dict[str, list[Verdict]]  # reward name -> [G], before weighting; details only of failed ones, shortened
    terms: dict[str, RewardTerm]  # by reward name
    token_penalties: list[np.ndarray] | None = None  # [G] each sampled token's KL, which `rewards` lost; None: no KL
    location: Location | None = None  # of the body in the log; None: no log
    labels: list[float] | None = None  # of a written row, as in `ScoredGroup`
    asked: list[np.ndarray] | None = None  # [G] of [sampled tokens]: what the algorithm asks of the policy
    reference: list[float] | None = None  # [G] sums of log-probabilities by the model at model.path

    @property
    def lengths(self) -> list[int]:
        """[G] sampled tokens."""
        return [trajectory.sampled_tokens for trajectory in self.trajectories]

    @property
    def finish_reasons(self) -> list[FinishReason]:
        """[G] of each trajectory's last completion."""
        return [trajectory.finish_reason for trajectory in self.trajectories]

    def select(self, indices: list[int]) -> GroupRecord:
        """The same group with these trajectories only."""
        return replace(
            self,
            trajectories=[self.trajectories[index] for index in indices],
            rewards=[self.rewards[index] for index in indices],
            verdicts={name: [verdicts[index] for index in indices] for name, verdicts in self.verdicts.items()},
            terms={name: replace(term, scores=[term.scores[i] for i in indices]) for name, term in self.terms.items()},
            token_penalties=self.token_penalties and [self.token_penalties[index] for index in indices],
            asked=self.asked and [self.asked[index] for index in indices],
            reference=self.reference and [self.reference[index] for index in indices],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RatedGroup:
    """A scored group with its advantages, computed once for the loss and for the record."""

    scored: GroupRecord
    # [G] a number for all sampled tokens of a trajectory, or an array [sampled tokens] float32. None: the trajectory
    # has no reward, no token or no other trajectory to compare with, or was cut off, and is excluded from the loss.
    advantages: list[float | np.ndarray | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlannedSample:
    """A training sample before a rank has fetched its tokens: the sizes that packing needs, and the loss's inputs."""

    prompt_id: str  # as in `SequenceSize`
    prefix_tokens: int
    tokens: int
    body: Any  # reference to the `ScoredGroup`
    trajectory: int  # in [0, G)
    path: int  # of the trajectory
    advantage: float | np.ndarray  # a number, or [tokens that this sample trains on]
    weight: float  # loss weight of each sampled token
    mean_scale: float  # times `weight`: the mean weight of each sampled token
    oldest_version: int | None  # tokens of older policy versions have weight 0; None: every token counts
    has_token_rewards: bool = False  # the body has rewards of single tokens, which add to `advantage`


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainSample:
    """A sequence with all inputs of the loss, token by token.

    Entry t describes token t given the tokens before t. An observed token (of the prompt, of a tool's output) has
    log-probability, advantage, weights and version 0.
    """

    prompt_id: str  # samples with the same id begin with the same `prefix_tokens` tokens
    prefix_tokens: int  # in [0, L): tokens before the first one that this sample trains on
    token_ids: np.ndarray  # [L] int32
    sampled: np.ndarray  # [L] bool: the policy sampled the token
    rollout_logprobs: np.ndarray  # [L] float32
    advantages: np.ndarray  # [L] float32
    loss_weights: np.ndarray  # [L] float32; the weights of a whole update's tokens make its loss a mean
    mean_weights: np.ndarray  # [L] float32, `loss_weights` times a constant: those of a whole update add up to 1
    versions: np.ndarray | None = None  # [L] int32: the policy version that sampled the token; None: no token is stale
    routed_experts: np.ndarray | None = None  # [at most L, layers, k] of the first tokens; None: not recorded

    @property
    def tokens(self) -> int:
        """L."""
        return len(self.token_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainBatch:
    """Sequences end to end without padding, on the learner's device.

    Sequences with a common prefix are adjacent. The first one holds the prefix; the others start after it, and their
    `position_ids` continue from it (example: `model/layout.py`).
    """

    token_ids: Tensor  # [T] int64
    rollout_logprobs: Tensor  # [T] float32, by the engine
    old_logprobs: Tensor  # [T] float32, the denominator of ratios: the engine's, or the learner's before the step
    ref_logprobs: Tensor | None  # [T] float32, by the reference policy; None where no loss needs them
    advantages: Tensor  # [T] float32
    loss_weights: Tensor  # [T] float32
    mean_weights: Tensor  # [T] float32
    sequence_ids: Tensor  # [T] int64: 0, 0, ..., 1, 1, ...
    position_ids: Tensor  # [T] int64, from 0, or from the length of the prefix that the sequence continues
    stale: Tensor | None = None  # [T] bool: an older policy version sampled the token; None: no token is stale
    routed_experts: Tensor | None = None  # [T, layers, k] int16 to replay, UNRECORDED_EXPERT where not recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """A sample's tokens with a loss weight, under the policy."""

    logprob_sum: float
    tokens: int
    greedy: bool  # greedy sampling would choose every token


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """The policy version that the learner has after a step, and the metrics of the step."""

    policy_version: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """An engine's report on new weights. The engine samples only if all checksums equal the learner's."""

    stall_s: float  # length of the pause of running requests
    mismatched_tensors: list[str]  # names of tensors with wrong checksums; unless empty, the engine stays paused
