"""The choice among a prompt's candidates: demonstrations, or pairs of a chosen and a rejected completion."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import combinations
from statistics import fmean
from typing import NamedTuple

from rlframe.select.config import Choice, GradePairs, LengthPairs, RandomChoice
from rlframe.select.filters import NO_VERDICT

WRONG = "not right"


class Candidate(NamedTuple):
    """A completion that passed all filters, without its texts."""

    position: int  # of the item in the whole input
    reward: float | None
    tokens: int | None
    right: bool | None  # None: no verdict, so neither right nor wrong
    digest: bytes  # of conversation and answer
    grades: tuple[float, ...]  # by each verdict of GradePairs; NaN: the judge failed, which pairs with nothing


class Pair(NamedTuple):
    """Two completions of a prompt, the better one first."""

    chosen: Candidate
    rejected: Candidate
    margin: float | None


def choose(candidates: Sequence[Candidate], choice: Choice | RandomChoice) -> list[Candidate]:
    """The candidates of a prompt that become demonstrations.

    shortest, per_prompt 1: of right answers of 30 and 20 tokens and a wrong one of 5, the one of 20.
    """
    match choice:
        case RandomChoice():
            seed = choice.seed.to_bytes(16, "big")
            ranked = sorted(candidates, key=lambda candidate: blake2b(candidate.digest, key=seed).digest())
        case Choice(name="best"):
            ranked = sorted(candidates, key=lambda candidate: (-(candidate.reward or 0.0), candidate.tokens or 0))
        case Choice(name="shortest"):
            ranked = sorted(candidates, key=lambda candidate: candidate.tokens or 0)
        case _:
            ranked = list(candidates)
    return [candidate for candidate in ranked if not unfit(candidate, choice)][: choice.per_prompt]


def unfit(candidate: Candidate, choice: Choice | RandomChoice) -> str | None:
    """The reason for which a choice never takes a candidate; None where it may."""
    if choice.name == "best" and candidate.reward is None:
        return NO_VERDICT
    return WRONG if choice.name == "shortest" and not candidate.right else None


def pairs(candidates: Sequence[Candidate], choice: LengthPairs | GradePairs) -> list[Pair]:
    """The pairs of a prompt."""
    by_length = isinstance(choice, LengthPairs)
    return (length_pairs(candidates, choice) if by_length else grade_pairs(candidates, choice))[: choice.per_prompt]


def length_pairs(candidates: Sequence[Candidate], choice: LengthPairs) -> list[Pair]:
    """The shortest right answer against each wrong one, then against right ones that are long enough.

    longer 1.5: right answers of 20, 29 and 30 tokens and a wrong one of 10 make the pairs 20 > 10 and 20 > 30.
    """
    right = sorted((candidate for candidate in candidates if candidate.right), key=lambda c: c.tokens or 0)
    if not right:
        return []
    chosen, *others = right
    rejected = [candidate for candidate in candidates if candidate.right is False]
    if choice.longer is not None:
        bound = choice.longer * (chosen.tokens or 0)
        rejected += [candidate for candidate in reversed(others) if (candidate.tokens or 0) >= bound]
    return [Pair(chosen, candidate, None) for candidate in rejected]


def grade_pairs(candidates: Sequence[Candidate], choice: GradePairs) -> list[Pair]:
    """Pairs by falling difference of grades; each candidate is in one pair at most.

    delta 1: grades 5, 4, 3 of like lengths make the pair 5 > 3. The 4 is left without a partner.
    """
    possible = [pair for one, other in combinations(candidates, 2) if (pair := _graded(one, other, choice))]
    used: set[int] = set()
    disjoint = []
    for pair in sorted(possible, key=lambda pair: -(pair.margin or 0.0)):
        positions = {pair.chosen.position, pair.rejected.position}
        if used.isdisjoint(positions):
            used |= positions
            disjoint.append(pair)
    return disjoint


def _graded(one: Candidate, other: Candidate, choice: GradePairs) -> Pair | None:
    short, long = sorted((one.tokens or 0, other.tokens or 0))
    if one.digest == other.digest:
        return None
    if choice.length_ratio is not None and long > choice.length_ratio * short:
        return None
    differences = [a - b for a, b in zip(one.grades, other.grades, strict=True)]
    margin = fmean(differences)
    if margin < 0:
        one, other, differences = other, one, [-difference for difference in differences]
    return Pair(one, other, abs(margin)) if all(value >= choice.delta for value in differences) else None
