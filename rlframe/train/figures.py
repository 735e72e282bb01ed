"""Figures of a held-out set: pass@k, cons@n, their standard errors, mean reward, mean length. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import count
from statistics import fmean, stdev

from rlframe.reward.base import Reward
from rlframe.types import Completion, ScoredGroup

MAX_COMPARISONS = 200  # of a problem's wrong answers by the reward


def figures_of(groups: Sequence[ScoredGroup], name: str, reward: Reward, tries: Sequence[int]) -> dict[str, float]:
    """`pass@k` for every k of `tries`, `cons@n` of n completions, `reward`, `completion_tokens`, `truncated`.

    A completion is right when `reward`, whose name is `name`, gives it 1. `pass@k_se` is the standard error of pass@k
    over problems: completions of a problem depend on each other, so a problem counts once. A figure of nothing (every
    verdict failed, a standard error of one problem) is left out, and a problem with fewer than k verdicts is no part
    of pass@k.
    """
    judged = [pairs for group in groups if (pairs := _judged(group, name))]
    shares = {
        f"pass@{k}": [pass_at(k, len(pairs), sum(map(_right, pairs))) for pairs in judged if len(pairs) >= k]
        for k in tries
    }
    if reward.has_final_answers() and (n := max((len(group.rewards) for group in groups), default=0)) > 1:
        shares[f"cons@{n}"] = [consensus(pairs, reward) for pairs in judged]
    figures: dict[str, float] = {}
    for figure, values in shares.items():
        if values:
            figures[figure] = fmean(values)
        if len(values) > 1:
            figures[f"{figure}_se"] = stdev(values) / math.sqrt(len(values))
    return figures | _means(groups)


def pass_at(k: int, n: int, correct: int) -> float:
    """The chance that at least one of k completions is right, from `correct` right completions of n.

    The unbiased estimator 1 - C(n - correct, k) / C(n, k) of Chen et al., 2021, arXiv:2107.03374.
    """
    return 1 - math.comb(n - correct, k) / math.comb(n, k)


def consensus(judged: Sequence[tuple[Completion, bool]], reward: Reward) -> float:
    """The chance that the most frequent final answer is right; between answers of equal frequency a coin decides.

    Right completions have one answer, that of the reference. Wrong ones vote together where the reward calls their
    answers equal, and not at all without an answer (self-consistency: Wang et al., 2022, arXiv:2203.11171).

    Votes of six completions, 2 right: right 2, "7" 2, "9" 1, and one without an answer -> 1/2.
    """
    right_votes = sum(map(_right, judged))
    wrong = [answer for completion, right in judged if not right and (answer := reward.final_answer(completion))]
    if right_votes == 0:
        return 0.0
    if right_votes > len(wrong):  # no comparison of wrong answers could change the outcome
        return 1.0
    votes = _votes(wrong, reward.same_answer)
    return 1 / (1 + votes.count(right_votes)) if max(votes) <= right_votes else 0.0


def _votes(answers: Sequence[str], same: Callable[[str, str], bool]) -> list[int]:
    """Number of equal answers, for each different answer.

    A comparison may take seconds, so after `MAX_COMPARISONS` answers are equal only where their texts are.
    """
    classes: list[tuple[str, int]] = []
    comparisons = count()
    for answer in answers:
        for index, (other, votes) in enumerate(classes):
            if answer == other or (next(comparisons) < MAX_COMPARISONS and same(other, answer)):
                classes[index] = (other, votes + 1)
                break
        else:
            classes.append((answer, 1))
    return [votes for _, votes in classes]


def _judged(group: ScoredGroup, name: str) -> list[tuple[Completion, bool]]:
    """Completions with a verdict, and True for the right ones; empty where the reward does not apply to the task."""
    pairs = zip(group.group.completions, group.verdicts.get(name, []), strict=False)
    return [(completion, verdict.score >= 1) for completion, verdict in pairs if verdict.score is not None]


def _right(pair: tuple[Completion, bool]) -> bool:
    return pair[1]


def _means(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    values = {
        "reward": [reward for group in groups for reward in group.rewards if reward is not None],
        "completion_tokens": [length for group in groups for length in group.lengths],
        "truncated": [reason == "length" for group in groups for reason in group.finish_reasons],
    }
    return {figure: fmean(numbers) for figure, numbers in values.items() if numbers}
