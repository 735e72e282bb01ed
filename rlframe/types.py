"""Values that cross process boundaries, in the order of a step.

Each stage of the loop takes one type and returns the next. No field is filled in later: a value that exists is
complete. Shapes: P prompts, G trajectories of a prompt, L tokens of a sequence, T packed tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Message: TypeAlias = dict[str, str]  # {"role": "user", "content": "What is 2 + 3?"}
FinishReason: TypeAlias = Literal["stop", "length"]
VerdictStatus: TypeAlias = Literal["scored", "unparseable", "timeout", "failed"]
SkipReason: TypeAlias = Literal["overlong", "heldout"]
# Treatment of prompts that take longer than max_staleness steps: a step waits for them, their old tokens have weight 0,
# or their tokens count at any age.
Late: TypeAlias = Literal["wait", "mask", "keep"]
TEACHER = "teacher/"  # begins the name of a teacher's verdicts: "teacher/big"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A conversation that ends with the user, and the right answer.

    >>> Problem(id="arithmetic/7", messages=[{"role": "user", "content": "What is 2 + 3?"}],
    ...         reference="5", task="math").reference
    '5'
    """

    id: str  # unique in its source, and readable: "train.jsonl:7"
    messages: list[Message]
    reference: str  # compared by rewards; its meaning depends on the task
    task: str  # selects the rewards
    extra: dict[str, Any] = field(default_factory=dict)  # JSON values by name, for rewards: further columns of a row


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A position of the prompt stream whose problem is not sampled: too long for the run, or held out."""

    id: str  # of the prompt that the position would have: "arithmetic/7@0"
    reason: SkipReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A problem under the chat template, tokenized. A run samples each prompt id once."""

    id: str  # unique in a run: the problem's id and the epoch, "arithmetic/7@0"
    messages: list[Message]
    token_ids: list[int]  # [L]
    reference: str
    task: str
    extra: dict[str, Any] = field(default_factory=dict)  # of the problem
    prefix: list[int] = field(default_factory=list)  # first tokens of every completion; engines sample what follows


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling parameters. The same prompt, seed and weights give the same completions."""

    completions: int  # G of each prompt
    max_tokens: int
    temperature: float  # 0: greedy
    seed: int
    # A cut of the distribution, off by default: the log-probabilities are then of the tokens that are left.
    top_p: float = 1.0
    top_k: int = 0  # 0: all tokens
    min_p: float = 0.0
    # Ends of a completion beside the model's own end token, which is sampled, trained on and in the text.
    stop: list[str] = field(default_factory=list)
    stop_token_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A numbered try at sampling a prompt's group. Answers to an earlier attempt of the prompt are ignored."""

    prompt: Prompt
    number: int  # 1, 2, ...
    version: int  # oldest policy version at admission: no token of the attempt is older

    @property
    def key(self) -> str:
        """The name of the attempt's order: "arithmetic/7@0#2"."""
        return f"{self.prompt.id}#{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSpan:
    """Policy `version` sampled the tokens [start, end) of a completion."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Completion:
    """Tokens sampled by an engine, with log-probabilities, policy versions and text."""

    token_ids: np.ndarray  # [L] int32
    logprobs: np.ndarray  # [L] float32, of the distribution that was sampled from (after temperature)
    versions: list[VersionSpan]  # contiguous over [L]; empty only where L is 0
    text: str
    finish_reason: FinishReason
    cached_tokens: int = 0  # prompt tokens whose keys and values the engine already had
    routed_experts: np.ndarray | None = None  # [prompt + L - 1, layers, k] expert ids; None: not recorded


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampledTokens:
    """Tokens of a completion that is not finished, from its token `start` on; another engine can go on after them.

    Tokens [5, 6] from 0 on and [7] from 2 on, all of version 3, join to [5, 6, 7] with the span (3, 0, 3).
    """

    start: int  # 0: from the first token
    token_ids: np.ndarray  # [L] int32
    logprobs: np.ndarray  # [L] float32
    versions: list[VersionSpan]  # contiguous over [start, start + L): offsets count in the whole completion

    @property
    def end(self) -> int:
        return self.start + len(self.token_ids)

    def since(self, start: int) -> SampledTokens:
        """The tokens from `start` on, which is at least `self.start`."""
        start = min(start, self.end)
        token_ids, logprobs = self.token_ids[start - self.start :], self.logprobs[start - self.start :]
        versions = [replace(span, start=max(span.start, start)) for span in self.versions if span.end > start]
        return SampledTokens(start=start, token_ids=token_ids, logprobs=logprobs, versions=versions)

    @classmethod
    def joined(cls, chunks: list[SampledTokens]) -> SampledTokens:
        """Chunks that follow each other, as one."""
        import numpy as np

        return cls(
            start=chunks[0].start,
            token_ids=np.concatenate([chunk.token_ids for chunk in chunks]),
            logprobs=np.concatenate([chunk.logprobs for chunk in chunks]),
            versions=merged([span for chunk in chunks for span in chunk.versions]),
        )


def merged(spans: list[VersionSpan]) -> list[VersionSpan]:
    """The spans, with neighbours of the same version as one."""
    runs: list[VersionSpan] = []
    for span in spans:
        same = bool(runs) and runs[-1].version == span.version
        runs.append(replace(span, start=runs.pop().start) if same else span)
    return runs


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledCompletion:
    """A completion from the engine, with the position in the group."""

    prompt_id: str
    index: int  # in [0, G)
    completion: Completion


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """Tokens that the policy observes, then a completion that the policy samples.

    A tool's output is observed, a tool call is sampled; only sampled tokens are trained on.
    """

    parent: int | None  # index of the previous turn; None: the first turn of a conversation
    observed: np.ndarray  # [O] int32: the prompt under the chat template, or the tokens after the parent's completion
    completion: Completion


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trajectory:
    """An episode as a tree of turns, parents before children; nearly always a chain.

    A tool call takes two turns, 9 and 4 sampled tokens here:

        turn 0 (parent None)  observed "What is 2 + 3?" [12]  sampled "<tool>2 + 3</tool>" [9]
        turn 1 (parent 0)     observed "5"              [3]   sampled "It is 5."           [4]

    `sampled_tokens` is 13, and the only path is [turn 0, turn 1]: one sequence of 28 tokens to train on. A
    single-turn completion is a chain of one turn.
    """

    turns: list[Turn]

    @property
    def completion(self) -> Completion:
        """The last turn's completion, which holds the final answer."""
        return self.turns[-1].completion

    @property
    def sampled_tokens(self) -> int:
        """Number of sampled tokens in all turns."""
        return sum(len(turn.completion.token_ids) for turn in self.turns)

    @property
    def versions(self) -> list[VersionSpan]:
        """Policy versions of the sampled tokens, turn after turn; offsets count within each turn."""
        return [span for turn in self.turns for span in turn.completion.versions]

    def paths(self) -> list[tuple[list[int], list[int]]]:
        """The turns from the root to each leaf, one training sequence a path, in the order of the leaves.

        A path has two parts: turns that an earlier path trains on, then turns that this path trains on.

            turns 0 - 1 and 0 - 2    ->    [([], [0, 1]), ([0], [2])]
        """
        parents = {turn.parent for turn in self.turns}
        paths: list[tuple[list[int], list[int]]] = []
        trained: set[int] = set()
        for leaf in (index for index in range(len(self.turns)) if index not in parents):
            path = [leaf]
            while (parent := self.turns[path[-1]].parent) is not None:
                path.append(parent)
            path.reverse()
            shared = sum(turn in trained for turn in path)
            paths.append((path[:shared], path[shared:]))
            trained.update(path)
        return paths


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """All trajectories of one prompt, which a group-relative advantage compares."""

    prompt: Prompt
    trajectories: list[Trajectory]  # [G]

    @classmethod
    def single_turn(cls, prompt: Prompt, completions: list[Completion]) -> RolloutGroup:
        """A group of [G] completions, each a trajectory of one turn."""
        import numpy as np

        observed = np.asarray(prompt.token_ids, np.int32)
        turns = [Turn(parent=None, observed=observed, completion=completion) for completion in completions]
        return cls(prompt=prompt, trajectories=[Trajectory(turns=[turn]) for turn in turns])

    @property
    def completions(self) -> list[Completion]:
        """[G] the last completion of each trajectory."""
        return [trajectory.completion for trajectory in self.trajectories]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The judgement of a trajectory by a reward.

    A problem caused by the model has a score: a wrong answer, an unparseable answer, an answer that takes the verifier
    too long. A problem caused by rlframe has none (`failed`: a bug, a dead worker), and never teaches the policy.

    >>> Verdict(score=1.0, status="scored", seconds=0.001, detail="5 = 5").score
    1.0
    """

    score: float | None  # None exactly when status is "failed"
    status: VerdictStatus
    seconds: float
    detail: str
    # [sampled tokens] float32, weighted rewards of single tokens beside the score; None: the verdict has none.
    token_rewards: np.ndarray | None = field(default=None, compare=False)
    final: bool = field(default=False, compare=False)  # failed, and would fail again; no file keeps it

    def __post_init__(self) -> None:
        if (self.score is None) != (self.status == "failed"):
            raise ValueError(
                f"a verdict has no score exactly when it failed, not score={self.score} with status={self.status!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardTerm:
    """A reward's part of the sum: a weight of 0.5 and the scores [1.0, 0.0] add [0.5, 0.0] to the group's rewards."""

    weight: float
    scores: list[float]  # [G] clipped; 0 where a reward that it requires is below 1, and where the sum is None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredGroup:
    """A rollout group and its rewards."""

    group: RolloutGroup
    rewards: list[float | None]  # [G] weighted sums; None: no verdict, excluded from baseline and loss
    verdicts: dict[str, list[Verdict]]  # reward name -> [G], before weighting
    terms: dict[str, RewardTerm] = field(default_factory=dict)  # by reward name; empty in a group read from a file
    labels: list[float] | None = None  # of the only trajectory's sampled tokens; None: no assessment of a written row

    def token_rewards(self, index: int) -> np.ndarray | None:
        """[sampled tokens] of a trajectory: the sum over its verdicts; None where no verdict has rewards of tokens."""
        rows = [verdicts[index].token_rewards for verdicts in self.verdicts.values()]
        found = [row for row in rows if row is not None]
        return sum(found[1:], start=found[0]) if found else None

    @property
    def lengths(self) -> list[int]:
        """[G] sampled tokens."""
        return [trajectory.sampled_tokens for trajectory in self.group.trajectories]

    @property
    def finish_reasons(self) -> list[FinishReason]:
        """[G] of each trajectory's last completion."""
        return [completion.finish_reason for completion in self.group.completions]
