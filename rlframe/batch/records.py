"""Scored groups -> records: the numbers that the driver and the algorithms need. Pure, and without torch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rlframe.training import GroupRecord, SequenceSize, TrajectoryRecord
from rlframe.types import RolloutGroup, ScoredGroup, Verdict

if TYPE_CHECKING:
    from rlframe.record.frames import Location

MAX_DETAIL = 300  # characters of a failed verdict's detail


def to_record(
    scored: ScoredGroup, body: Any, worker: str, location: Location | None = None, prompt_id: str | None = None
) -> GroupRecord:
    """The group in numbers. `worker` has made the whole group, `body` is the reference to it, `location` its place in
    the run's log. `prompt_id`: of an earlier group with the same prompt; None: the group's own.
    """
    group = scored.group
    prompt_id = prompt_id or group.prompt.id
    return GroupRecord(
        prompt_id=prompt_id,
        prompt_tokens=len(group.prompt.token_ids),
        worker=worker,
        body=body,
        trajectories=[_trajectory_record(scored, g, prompt_id) for g in range(len(group.trajectories))],
        rewards=scored.rewards,
        verdicts={name: [_shortened(verdict) for verdict in verdicts] for name, verdicts in scored.verdicts.items()},
        terms=scored.terms,
        location=location,
        labels=scored.labels,
    )


def _trajectory_record(scored: ScoredGroup, g: int, prompt_id: str) -> TrajectoryRecord:
    group, token_rewards = scored.group, scored.token_rewards(g)
    trajectory = group.trajectories[g]
    return TrajectoryRecord(
        sampled_tokens=trajectory.sampled_tokens,
        finish_reason=trajectory.completion.finish_reason,
        versions=trajectory.versions,
        cached_tokens=trajectory.turns[0].completion.cached_tokens,
        sequences=list(_sequences(group, g, prompt_id)),
        token_reward=None if token_rewards is None else float(token_rewards.sum(dtype=np.float64)),
    )


def _sequences(group: RolloutGroup, g: int, prompt_id: str) -> Iterator[SequenceSize]:
    """Yields the size of each path of trajectory `g`, as `batch/sequences.py` makes its training sample."""
    trajectory = group.trajectories[g]
    observed = [len(turn.observed) for turn in trajectory.turns]
    sampled = [len(turn.completion.token_ids) for turn in trajectory.turns]
    ends = list(itertools.accumulate(sampled))
    for shared, trained in trajectory.paths():
        yield SequenceSize(
            # Only turn 0 observes the prompt alone. Any other path's prefix is longer, or another conversation.
            prompt_id=f"{group.prompt.id}#{g}.{trained[0]}" if trained[0] else prompt_id,
            prefix_tokens=sum(observed[turn] + sampled[turn] for turn in shared) + observed[trained[0]],
            tokens=sum(observed[turn] + sampled[turn] for turn in shared + trained),
            trained=_merged((ends[turn] - sampled[turn], ends[turn]) for turn in trained),
        )


def _merged(ranges: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    """Neighbouring ranges as a single range: (0, 9), (9, 13), (20, 22) -> (0, 13), (20, 22)."""
    merged: list[tuple[int, int]] = []
    for start, end in ranges:
        if merged and merged[-1][1] == start:
            start = merged.pop()[0]
        merged.append((start, end))
    return merged


def _shortened(verdict: Verdict) -> Verdict:
    """The verdict without rewards of tokens, with the beginning of its detail if it failed, or else without it."""
    detail = verdict.detail[:MAX_DETAIL] if verdict.status == "failed" else ""
    return replace(verdict, detail=detail, token_rewards=None)
