"""Scored groups with tokens few enough to count, and values as plain Python for comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from rlframe.batch.records import to_record
from rlframe.training import GroupRecord
from rlframe.types import (
    Completion,
    FinishReason,
    Prompt,
    RolloutGroup,
    ScoredGroup,
    Trajectory,
    Turn,
    Verdict,
    VersionSpan,
)


def make_completion(tokens: int, first: int = 100, finish_reason: FinishReason = "stop") -> Completion:
    """Token ids first, first + 1, ... with log-probabilities -1, -2, ..."""
    return Completion(
        token_ids=np.arange(first, first + tokens, dtype=np.int32),
        logprobs=-1.0 - np.arange(tokens, dtype=np.float32),
        versions=[VersionSpan(version=0, start=0, end=tokens)] if tokens else [],
        text="",
        finish_reason=finish_reason,
    )


def make_verdict(score: float | None, detail: str = "") -> Verdict:
    return Verdict(score=score, status="failed" if score is None else "scored", seconds=0.0, detail=detail)


def make_group(
    rewards: list[float | None],
    lengths: list[int],
    prompt_tokens: int = 2,
    name: str = "p",
    cut_off: Sequence[int] = (),
    version: int | None = None,
) -> ScoredGroup:
    """Single-turn completions of `lengths` tokens behind the prompt 1, 2, ..., with these rewards.

    `cut_off`: indices of the completions that reached the length limit. `version`: of the policy that sampled them.
    """
    prompt = Prompt(id=name, messages=[], token_ids=list(range(1, prompt_tokens + 1)), reference="", task="math")
    verdicts = [
        make_verdict(reward, detail="" if reward is not None else f"worker {index} is on fire")
        for index, reward in enumerate(rewards)
    ]
    completions = [
        make_completion(length, finish_reason="length" if index in cut_off else "stop")
        for index, length in enumerate(lengths)
    ]
    if version is not None:
        completions = [
            replace(each, versions=[replace(span, version=version) for span in each.versions]) for each in completions
        ]
    group = RolloutGroup.single_turn(prompt, completions)
    return ScoredGroup(group=group, rewards=rewards, verdicts={"math": verdicts})


def recorded(group: ScoredGroup) -> GroupRecord:
    """The group's record, with the group itself as the body."""
    return to_record(group, body=group, worker="episodes-0")


def make_record(
    rewards: list[float | None],
    lengths: list[int],
    prompt_tokens: int = 2,
    name: str = "p",
    cut_off: Sequence[int] = (),
) -> GroupRecord:
    """The record of `make_group`."""
    return recorded(make_group(rewards, lengths, prompt_tokens, name, cut_off))


def rewarded(rewards: list[float | None]) -> GroupRecord:
    """Completions of one token with these rewards."""
    return make_record(rewards, [1] * len(rewards))


def make_turn(parent: int | None, observed: list[int], sampled: list[int]) -> Turn:
    """A turn with these token ids; token n has the log-probability -n."""
    completion = Completion(
        token_ids=np.array(sampled, np.int32),
        logprobs=-np.array(sampled, np.float32),
        versions=[VersionSpan(version=0, start=0, end=len(sampled))],
        text="",
        finish_reason="stop",
    )
    return Turn(parent=parent, observed=np.array(observed, np.int32), completion=completion)


def make_multi_turn_group(trees: list[list[Turn]], rewards: list[float | None]) -> ScoredGroup:
    """One trajectory for each list of turns."""
    prompt = Prompt(id="p", messages=[], token_ids=trees[0][0].observed.tolist(), reference="", task="math")
    group = RolloutGroup(prompt=prompt, trajectories=[Trajectory(turns=turns) for turns in trees])
    return ScoredGroup(group=group, rewards=rewards, verdicts={"math": [make_verdict(reward) for reward in rewards]})


def plain(value: Any) -> Any:
    """A value as nested dictionaries, lists and numbers, which compare by content."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def with_token_rewards(
    scored: ScoredGroup, rows: Sequence[Sequence[float] | None], name: str = "teacher/big"
) -> ScoredGroup:
    """The group with a verdict for each trajectory that rewards its tokens; None: a verdict that failed."""
    verdicts = [
        make_verdict(None, "the teacher is gone")
        if row is None
        else replace(make_verdict(float(sum(row))), token_rewards=np.array(row, np.float32))
        for row in rows
    ]
    return replace(scored, verdicts=scored.verdicts | {name: verdicts})
