"""Verdicts -> rewards: which terms speak on a prompt, and their clipped, gated, weighted sum. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rlframe.reward.base import Reward
from rlframe.types import Problem, RolloutGroup, ScoredGroup, Verdict


def speaking(terms: Mapping[str, Reward], task: str) -> dict[str, Reward]:
    """The terms that speak on prompts of `task`."""
    return {name: term for name, term in terms.items() if term.tasks is None or task in term.tasks}


def combine(group: RolloutGroup, verdicts: dict[str, list[Verdict]], terms: Mapping[str, Reward]) -> ScoredGroup:
    """The group with its rewards. verdicts: name -> [G], of every term that speaks on its prompt.

    Raises ValueError where a name has not one verdict for each completion.
    """
    count = len(group.completions)
    for name, row in verdicts.items():
        if len(row) != count:
            raise ValueError(f"prompt {group.prompt.id!r}: {len(row)} verdicts of {name!r} for {count} completions")
    rewards = [total({name: row[index] for name, row in verdicts.items()}, terms) for index in range(count)]
    return ScoredGroup(group=group, rewards=rewards, verdicts=verdicts)


def total(verdicts: dict[str, Verdict], terms: Mapping[str, Reward]) -> float | None:
    """One completion's reward. None where a term that counts has no score: its sum would rank against full ones.

    A term whose `requires` are not all 1 counts 0, whatever it said itself.
    """
    reward = 0.0
    for name, verdict in verdicts.items():
        required = [verdicts[other].score for other in terms[name].requires if other in verdicts]
        if None in required:
            return None
        if any(score is not None and score < 1 for score in required):
            continue
        if verdict.score is None:
            return None
        low, high = terms[name].clip or (verdict.score, verdict.score)
        reward += terms[name].weight * min(max(verdict.score, low), high)
    return reward


def check(problems: Iterable[Problem], terms: Mapping[str, Reward]) -> None:
    """Raises ValueError where a reward's `tasks` name one that no problem has, a problem has a task on which no reward
    speaks, or a reward refuses a problem's reference; the message says which problem that is."""
    try:
        tasks = {_checked_task(problem, terms) for problem in problems}
    finally:
        for term in terms.values():
            term.close()  # what a check started here; workers start their own
    for name, term in terms.items():
        if unknown := sorted(set(term.tasks or []) - tasks):
            there_are = ", ".join(sorted(tasks))
            raise ValueError(
                f"reward.terms.{name}.tasks: no problem has the task {unknown[0]!r}; there are {there_are}"
            )


def _checked_task(problem: Problem, terms: Mapping[str, Reward]) -> str:
    chosen = speaking(terms, problem.task)
    if not chosen:
        raise ValueError(f"problem {problem.id}: no reward speaks on its task {problem.task!r}: reward.terms.*.tasks")
    for name, term in chosen.items():
        try:
            term.check(problem.reference)
        except ValueError as error:
            raise ValueError(
                f"problem {problem.id}: its reference is nothing that {name!r} can use: {error}"
            ) from error
    return problem.task
