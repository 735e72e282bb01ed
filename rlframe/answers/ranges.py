"""Ranges of numbers: intervals and their unions."""

from __future__ import annotations

from rlframe.answers.sequences import same_sets
from rlframe.answers.truth import Judge, Truth, all_true
from rlframe.answers.values import (
    INFINITY,
    MINUS_INFINITY,
    Collection,
    Interval,
    Number,
    Union,
    Value,
)  # fmt: skip


def same_ranges(judge: Judge, reference: Value, answer: Value) -> Truth:
    """At least one side is an interval or a union. (1, 2) is a pair and an open interval."""
    match reference, answer:
        case Interval(), Interval():
            return same_intervals(judge, reference, answer)
        case Interval(), Collection(kind="tuple", items=(low, high)):
            return same_intervals(judge, reference, Interval(low, high, False, False))
        case Collection(kind="tuple", items=(low, high)), Interval():
            return same_intervals(judge, Interval(low, high, False, False), answer)
        case (Number(), _) | (_, Number()):
            return False
        case (Union() | Interval() | Collection(), Union() | Interval() | Collection()):
            if Collection in (type(reference), type(answer)):
                return False
            names = {value.name for value in (reference, answer) if isinstance(value, Union | Interval)} - {None}
            if len(names) > 1:
                return False
            same = same_sets(judge, parts(reference), parts(answer))
            return True if same else judge.by_algebra(reference, answer)
    return judge.by_algebra(reference, answer)


def same_intervals(judge: Judge, reference: Interval, answer: Interval) -> Truth:
    """Ends and brackets are the same; a bracket at infinity does not count."""
    if reference.name and answer.name and reference.name.replace(" ", "") != answer.name.replace(" ", ""):
        return False
    for end, closed, other in (
        (reference.low, reference.low_closed, answer.low_closed),
        (reference.high, reference.high_closed, answer.high_closed),
    ):
        if closed != other and end not in (INFINITY, MINUS_INFINITY):
            return False
    return all_true([judge.same(reference.low, answer.low), judge.same(reference.high, answer.high)])


def parts(value: Value) -> tuple[Value, ...]:
    return value.items if isinstance(value, Union | Collection) else (value,)
