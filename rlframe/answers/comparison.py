r"""Comparison of two values by their kinds. What only algebra can decide stays open, or is asked of algebra.

The trusted process compares without algebra; where the result is None, the process that may be killed compares again,
with math-verify as its algebra.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Literal, Protocol, TypeAlias

from rlframe.answers.equations import same_equation
from rlframe.answers.exact import letter_of, marks, restates, same_digits, same_number, same_words, without_percent
from rlframe.answers.latex import apart, inequality, latex
from rlframe.answers.moments import same_moment
from rlframe.answers.quantities import same_quantities
from rlframe.answers.ranges import same_ranges
from rlframe.answers.sequences import same_collections, same_matrices, same_ratios
from rlframe.answers.truth import Judge, Truth, any_true
from rlframe.answers.values import (
    Based,
    Choice,
    Collection,
    Either,
    Equation,
    Expression,
    Interval,
    Matrix,
    Moments,
    Number,
    Quantity,
    Ratio,
    Union,
    Unreadable,
    Value,
    Words,
)  # fmt: skip

Units: TypeAlias = Literal["ignore", "compare"]

RELATION = re.compile(r"[<>]|\\(?:le|ge)(?![A-Za-z])")


class Algebra(Protocol):
    """Decides whether two LaTeX texts are equal, or, with `within`, closer than that; None if it cannot tell."""

    def __call__(self, reference: str, answer: str, within: Fraction | None = None) -> Truth: ...


def no_algebra(reference: str, answer: str, within: Fraction | None = None) -> Truth:
    return None


class Comparison:
    r"""Compares values under a rule for units, by kinds and by `algebra`.

    >>> from rlframe.answers.reading import read
    >>> same = Comparison("compare").same
    >>> same(read("5 cm"), read("0.05 m")), same(read("(1, 2)"), read(r"\{1, 2\}")), same(read("x + 1"), read("1 + x"))
    (True, False, None)
    """

    def __init__(self, units: Units, algebra: Algebra = no_algebra) -> None:
        self.compare_units, self._algebra = units == "compare", algebra

    def same(self, reference: Value, answer: Value) -> Truth:
        """True if the answer is right for the reference; None if only algebra can tell."""
        if reference == answer:
            return True
        match reference, answer:
            case Number(), Number():
                return same_number(reference, answer)
            case (Unreadable(), _) | (_, Unreadable()):
                return False
            case Either(), _:
                return any_true(self.same(reading, answer) for reading in reference.readings)
            case _, Either():
                return any_true(self.same(reference, reading) for reading in answer.readings)
            case (Choice(), _) | (_, Choice()):
                return same_choices(self, reference, answer)
            case (Equation(), _) | (_, Equation()):
                return same_equation(self, reference, answer)
            case (Quantity(), _) | (_, Quantity()):
                return same_quantities(self, reference, answer)
            case (Words(), Collection()) | (Collection(), Words()):
                return same_collections(self, reference, answer)
            case (Words(), _) | (_, Words()):
                return same_words(reference, answer)
            case (Moments(), _) | (_, Moments()):
                return same_moments(self, reference, answer)
            case (Based(), _) | (_, Based()):
                return same_digits(reference, answer)
            case (Matrix(), _) | (_, Matrix()):
                return same_matrices(self, reference, answer)
            case (Union() | Interval(), _) | (_, Union() | Interval()):
                return same_ranges(self, reference, answer)
            case (Collection(), _) | (_, Collection()):
                return same_collections(self, reference, answer)
            case (Ratio(), _) | (_, Ratio()):
                return same_ratios(self, reference, answer)
            case _:
                return self._leaves(reference, answer)

    def _leaves(self, reference: Value, answer: Value) -> Truth:
        """Numbers and expressions."""
        if not isinstance(reference, Number | Expression) or not isinstance(answer, Number | Expression):
            return self.by_algebra(reference, answer)
        if reference.text.replace(" ", "") == answer.text.replace(" ", "") and reference.percent == answer.percent:
            return True
        if len(reference.text) == len(answer.text) == 1:
            return reference.text.casefold() == answer.text.casefold()
        if marks(reference) != marks(answer) or restates(reference, answer):
            return False
        pairs = [(reference, answer)]
        if reference.percent != answer.percent:
            pairs.append((without_percent(reference), without_percent(answer)))
        return any_true(self.by_algebra(*pair) for pair in pairs)

    def by_algebra(self, reference: Value, answer: Value, within: Fraction | None = None) -> Truth:
        reference_text, answer_text = formula(reference, answer), formula(answer, reference)
        if reference_text is None or answer_text is None:
            return False
        return self._algebra(*apart(reference_text, answer_text), within)


def same_choices(judge: Judge, reference: Value, answer: Value) -> Truth:
    """The letter counts, and the content unless the other side has a letter."""
    match reference, answer:
        case Choice(), Choice():
            return reference.letter == answer.letter and judge.same(reference.content, answer.content) is not False
        case Choice(letter, content), other:
            return letter_of(other) == letter if letter_of(other) else judge.same(content, other)
        case other, Choice(letter, content):
            return letter_of(other) == letter if letter_of(other) else judge.same(other, content)
    return False


def same_moments(judge: Judge, reference: Value, answer: Value) -> Truth:
    """Dates and times are equal field by field. 7:32 may be a ratio beside a ratio or the fraction 7/32."""
    match reference, answer:
        case Moments(), Moments():
            return any(same_moment(x, y) for x in reference.readings for y in answer.readings)
        case (Moments(ratio=Ratio() as ratio), (Ratio() | Number()) as other) | (
            (Ratio() | Number()) as other, Moments(ratio=Ratio() as ratio)
        ):  # fmt: skip
            if isinstance(other, Number):
                digits = [part.text for part in ratio.parts if isinstance(part, Number)]
                return re.findall(r"[0-9]+", other.text) == digits
            return same_ratios(judge, ratio, other)
    return False


def formula(value: Value, other: Value) -> str | None:
    """LaTeX of a value; of an interval beside an inequality, as an inequality."""
    if isinstance(value, Interval) and isinstance(other, Expression) and RELATION.search(other.text):
        return inequality(value) or latex(value)
    return latex(value)
