"""Truth with three values: True, False, and None for what only algebra can decide."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import Protocol, TypeAlias

from rlframe.answers.values import Value

Truth: TypeAlias = bool | None


def all_true(truths: Iterable[Truth]) -> Truth:
    result: Truth = True
    for truth in truths:
        if truth is False:
            return False
        result = result and truth
    return result


def any_true(truths: Iterable[Truth]) -> Truth:
    result: Truth = False
    for truth in truths:
        if truth:
            return True
        result = None if truth is None else result
    return result


class Judge(Protocol):
    """Compares two values: `Comparison`, as the functions for single kinds of values see it."""

    compare_units: bool

    def same(self, reference: Value, answer: Value) -> Truth: ...

    def by_algebra(self, reference: Value, answer: Value, within: Fraction | None = None) -> Truth: ...
