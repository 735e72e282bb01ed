"""The outcome of a prompt's group: solved by all completions, failed by all, or mixed. Pure."""

from __future__ import annotations

from typing import Literal, TypeAlias

from rlframe.training import GroupRecord

Outcome: TypeAlias = Literal["solved", "failed", "mixed"]


def outcome_of(group: GroupRecord, reward: str) -> Outcome | None:
    """Solved if every completion is right, failed if none is; None if no completion has a verdict.

    A completion is right at a score of 1 by the reward named `reward`. For a task that this reward does not score, the
    first reward that scores the task decides.
    """
    verdicts = group.verdicts.get(reward) or next(iter(group.verdicts.values()), [])
    right = {verdict.score >= 1 for verdict in verdicts if verdict.score is not None}
    if not right:
        return None
    return "mixed" if len(right) == 2 else "solved" if True in right else "failed"
