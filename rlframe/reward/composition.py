"""Verdicts -> rewards: the clipped, gated, weighted sum of the terms that score a prompt's task. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from rlframe.reward.base import Reward
from rlframe.types import Problem, RewardTerm, RolloutGroup, ScoredGroup, Verdict


def speaking(terms: Mapping[str, Reward], task: str) -> dict[str, Reward]:
    """The terms that score prompts of `task`."""
    return {name: term for name, term in terms.items() if term.tasks is None or task in term.tasks}


def combine(group: RolloutGroup, verdicts: dict[str, list[Verdict]], terms: Mapping[str, Reward]) -> ScoredGroup:
    """The group with its rewards. verdicts: name -> [G], of every term that scores the prompt's task.

    Raises ValueError if a name does not have one verdict per completion.
    """
    count = len(group.completions)
    for name in verdicts:
        if (number := len(verdicts[name])) != count:
            raise ValueError(f"prompt {group.prompt.id!r}: {number} verdicts of {name!r} for {count} completions")
    counted = [counted_scores({name: verdicts[name][index] for name in verdicts}, terms) for index in range(count)]
    return ScoredGroup(
        group=group,
        rewards=[total(scores, terms) for scores in counted],
        verdicts=_gated(verdicts, terms),
        terms={
            name: RewardTerm(weight=terms[name].weight, scores=[scores[name] if scores else 0.0 for scores in counted])
            for name in verdicts
        },
    )


def counted_scores(verdicts: dict[str, Verdict], terms: Mapping[str, Reward]) -> dict[str, float] | None:
    """The scores of a completion as they count in the reward, by reward name, before weighting.

    A score counts 0 if one of the rewards that its term `requires` scores below 1, and within `clip` otherwise. None if
    a term that counts has no score: its sum would rank against full sums.
    """
    counted: dict[str, float] = {}
    for name, verdict in verdicts.items():
        required = _required(name, verdicts, terms)
        if None in required:
            return None
        if _closes(required):
            counted[name] = 0.0
            continue
        if verdict.score is None:
            return None
        low, high = terms[name].clip or (verdict.score, verdict.score)
        counted[name] = min(max(verdict.score, low), high)
    return counted


def _required(name: str, verdicts: Mapping[str, Verdict], terms: Mapping[str, Reward]) -> list[float | None]:
    """A completion's scores by the rewards that the term `name` requires, of those that speak on its task."""
    return [verdicts[other].score for other in terms[name].requires if other in verdicts]


def _closes(required: list[float | None]) -> bool:
    """True if a required score is below 1."""
    return any(score is not None and score < 1 for score in required)


def _gated(verdicts: dict[str, list[Verdict]], terms: Mapping[str, Reward]) -> dict[str, list[Verdict]]:
    """The verdicts [G] of each reward, without rewards of tokens where what the term requires scores below 1."""

    def gate(name: str, index: int, verdict: Verdict) -> Verdict:
        of_completion = {other: row[index] for other, row in verdicts.items()}
        closed = verdict.token_rewards is not None and _closes(_required(name, of_completion, terms))
        return replace(verdict, token_rewards=None) if closed else verdict

    return {
        name: [gate(name, *each) for each in enumerate(row)] if terms[name].requires else row
        for name, row in verdicts.items()
    }


def total(counted: dict[str, float] | None, terms: Mapping[str, Reward]) -> float | None:
    """The reward of a completion: the weighted sum of the scores that count."""
    return None if counted is None else sum((terms[name].weight * score for name, score in counted.items()), start=0.0)


def check(problems: Iterable[Problem], terms: Mapping[str, Reward], *, every_task: bool = True) -> None:
    """Raises ValueError for a task in `tasks` that no problem has, and for a problem that cannot be scored.

    Such a problem has a task that no reward scores, or a reference that a reward refuses; the message names it.
    `every_task`: a problem of every task is among `problems`; without it no task can be called unknown.
    """
    try:
        tasks = {_checked_task(problem, terms) for problem in problems}
    finally:
        for term in terms.values():
            term.close()  # a check may start a process; workers start their own
    for name, term in terms.items():
        if every_task and (unknown := sorted(set(term.tasks or []) - tasks)):
            raise ValueError(
                f"reward.terms.{name}.tasks: no problem has the task {unknown[0]!r}; there are "
                + ", ".join(sorted(tasks))
            )


def _checked_task(problem: Problem, terms: Mapping[str, Reward]) -> str:
    scoring = speaking(terms, problem.task)
    if not scoring:
        raise ValueError(f"problem {problem.id}: no reward speaks on its task {problem.task!r}: reward.terms.*.tasks")
    for name, term in scoring.items():
        try:
            term.check(problem.reference)
        except ValueError as error:
            raise ValueError(
                f"problem {problem.id}: its reference is nothing that {name!r} can use: {error}"
            ) from error
    return problem.task
