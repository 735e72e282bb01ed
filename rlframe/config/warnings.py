"""Combinations of settings that work, and that a user may not have meant: one rule per function, all in `RULES`.

A rule returns None, or else one line for the console: the key, the problem, and the remedy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rlframe.config.keys import RunKeys
from rlframe.objective.correction import Proximal

if TYPE_CHECKING:
    from rlframe.training import Packing


def warnings(run: RunKeys) -> list[str]:
    """A line for each rule that the settings break."""
    return [line for rule in RULES if (line := rule(run)) is not None]


def stale_tokens_have_a_ratio(run: RunKeys) -> str | None:
    weighed = any(correction.weighs_by_ratio for correction in run.initial_correction)
    if run.max_staleness and not run.algorithm.has_ratio and not weighed:
        return (
            f"max_staleness: {run.max_staleness} trains on tokens of older policies, and {run.algorithm.name} has no "
            f"ratio that makes up for their age; set {_correction_from_the_start(run)}, or max_staleness=0"
        )


def later_updates_have_a_ratio(run: RunKeys) -> str | None:
    minibatches, epochs = run.learner.minibatches, run.learner.epochs
    if minibatches * epochs > 1 and not run.algorithm.has_ratio:
        return (
            f"learner.minibatches, learner.epochs: {minibatches} x {epochs} updates a step move the policy away from "
            f"the one that sampled, and {run.algorithm.name} has no ratio that makes up for it; set both to 1, or "
            "choose an algorithm with a ratio"
        )


def late_tokens_are_corrected(run: RunKeys) -> str | None:
    corrected = any(not isinstance(correction, Proximal) for correction in run.initial_correction)
    if not run.max_staleness or corrected or not run.algorithm.has_ratio:
        return None  # stale_tokens_have_a_ratio warns of an algorithm without ratio
    if run.late != "keep" and run.max_staleness == 1:
        return None
    of_bounded_age = f"max_staleness: {run.max_staleness} trains on tokens up to {run.max_staleness} versions old"
    tokens = "late: keep trains on tokens of any age" if run.late == "keep" else of_bounded_age
    return (
        f"{tokens}, and no correction weighs them by the ratio of the policies; set "
        f"{_correction_from_the_start(run)}, or max_staleness=1 with late=mask"
    )


def a_group_fits_the_slots(run: RunKeys) -> str | None:
    rollout = run.rollout
    slots = rollout.slots * rollout.engines.min
    if slots < rollout.group_size:
        return (
            f"rollout.max_concurrent: all engines together generate {slots} completions at the same time, fewer than "
            f"rollout.group_size={rollout.group_size}, so every group waits for its own completions; raise it"
        )


def _correction_from_the_start(run: RunKeys) -> str:
    """The settings by which old tokens are weighed from the first step on."""
    return "correction=tis" + (" and mismatch.action=warn" if run.mismatch.action == "correct" else "")


# In the order of their report.
RULES: list[Callable[[RunKeys], str | None]] = [
    stale_tokens_have_a_ratio,
    later_updates_have_a_ratio,
    late_tokens_are_corrected,
    a_group_fits_the_slots,
]


def packing_warning(asked: str, taken: Packing) -> str | None:
    """A line for the console where `learner.packing=auto` chose a packing that computes prompts several times."""
    if taken in (asked, "shared"):
        return None
    return (
        f"learner.packing=auto takes {taken} sequences, since this model computes no shared prefixes right: every "
        "completion computes its prompt again"
    )
