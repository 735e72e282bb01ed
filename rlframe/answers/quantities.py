"""Quantities: a value with a unit beside another value, whose unit is ignored or compared."""

from __future__ import annotations

from fractions import Fraction

from rlframe.answers.exact import same_number
from rlframe.answers.latex import latex
from rlframe.answers.truth import Judge, Truth, any_true
from rlframe.answers.units import parse_unit
from rlframe.answers.values import Expression, Moments, Number, Quantity, Value, Words


def same_quantities(judge: Judge, reference: Value, answer: Value) -> Truth:
    """A unit on one side only is right, since the question names it. Nouns such as apples are never compared."""
    match reference, answer:
        case Quantity(), Quantity():
            first, second = parse_unit(reference.unit), parse_unit(answer.unit)
            bodies = judge.same(reference.body, answer.body)
            if (
                first.dimension is None
                or second.dimension is None
                or (first.size == second.size and (first.dimension == second.dimension))
            ):
                return bodies
            if first.dimension != second.dimension:
                return False if judge.compare_units else bodies
            converted = same_converted(judge, reference.body, answer.body, second.size / first.size)
            return converted if judge.compare_units else any_true([bodies, converted])
        case Quantity(), Words() | Moments():
            return False
        case Words() | Moments(), Quantity():
            return False
        case Quantity(), _:
            if reference.glued:
                return False
            return any_true([judge.same(reference.body, answer), same_in_radians(judge, reference, answer)])
        case _, Quantity():
            return any_true([judge.same(reference, answer.body), same_in_radians(judge, answer, reference)])
    return False


def same_converted(judge: Judge, reference: Value, answer: Value, factor: Fraction) -> Truth:
    """The answer times `factor`, the ratio of the units' sizes, is the reference."""
    if isinstance(reference, Number) and isinstance(answer, Number):
        return same_number(reference, Number(answer.value * factor, text="."))
    text = latex(answer)
    if text is None:
        return False
    scaled = Expression(rf"\frac{{{factor.numerator}}}{{{factor.denominator}}} \cdot ({text})")
    return judge.by_algebra(reference, scaled)


def same_in_radians(judge: Judge, degrees: Quantity, other: Value) -> Truth:
    """45° is π/4."""
    if degrees.unit != "°" or not (isinstance(other, Expression) and r"\pi" in other.text):
        return False
    text = latex(degrees.body)
    return text is not None and judge.by_algebra(other, Expression(rf"\frac{{{text} \pi}}{{180}}"))
