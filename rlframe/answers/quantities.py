"""Quantities: a value with a unit beside another value, whose unit is ignored or compared."""

from __future__ import annotations

from fractions import Fraction

from rlframe.answers.exact import same_number
from rlframe.answers.latex import latex
from rlframe.answers.truth import Judge, Truth, any_true
from rlframe.answers.units import Unit, parse_unit
from rlframe.answers.values import Expression, Moments, Number, Quantity, Value, Words

# Another unit of these is another value, even where units are ignored: 90 radians are not 90°, nor 50 cents $50.
ANGLE = (("angle", 1),)
MONEY = {((currency, 1),) for currency in ("dollar", "cent", "euro", "yen", "pound sterling", "rupee", "yuan")}


def same_quantities(judge: Judge, reference: Value, answer: Value) -> Truth:
    """A unit on one side only is right, since the question names it. Nouns such as apples are never compared."""
    match reference, answer:
        case Quantity(), Quantity():
            first, second = parse_unit(reference.unit), parse_unit(answer.unit)
            if is_radian(first) != is_radian(second) and ANGLE in (first.dimension, second.dimension):
                degrees, radians = (answer, reference) if is_radian(first) else (reference, answer)
                return same_in_radians(judge, degrees, radians.body)
            bodies = judge.same(reference.body, answer.body)
            if (
                first.dimension is None
                or second.dimension is None
                or (first.size == second.size and (first.dimension == second.dimension))
            ):
                return bodies
            if first.dimension != second.dimension and judge.compare_units:
                return False
            converted = same_converted(judge, reference.body, answer.body, second.size / first.size)
            if {first.dimension, second.dimension} <= MONEY or first.dimension == second.dimension == ANGLE:
                return converted
            if first.dimension != second.dimension:
                return bodies
            return converted if judge.compare_units else any_true([bodies, converted])
        case Quantity(), Words() | Moments():
            return False
        case Words() | Moments(), Quantity():
            return False
        case (Quantity(unit="°") as degrees, Expression(text=text) as other) | (
            Expression(text=text) as other, Quantity(unit="°") as degrees
        ) if r"\pi" in text:  # fmt: skip
            return same_in_radians(judge, degrees, other)
        case Quantity(), _:
            return False if reference.glued else judge.same(reference.body, answer)
        case _, Quantity():
            return judge.same(reference, answer.body)
    return False


def is_radian(unit: Unit) -> bool:
    return unit.name in ("rad", "radian", "radians")


def same_converted(judge: Judge, reference: Value, answer: Value, factor: Fraction) -> Truth:
    """The answer times `factor`, the ratio of the units' sizes, is the reference."""
    if isinstance(reference, Number) and isinstance(answer, Number):
        return same_number(reference, Number(answer.value * factor, text="."))
    text = latex(answer)
    if text is None:
        return False
    scaled = Expression(rf"\frac{{{factor.numerator}}}{{{factor.denominator}}} \cdot ({text})")
    return judge.by_algebra(reference, scaled)


def same_in_radians(judge: Judge, degrees: Quantity, radians: Value) -> Truth:
    """45° is π/4."""
    in_degrees, in_radians = latex(degrees.body), latex(radians)
    if in_degrees is None or in_radians is None:
        return False
    size = parse_unit(degrees.unit).size / 180
    return judge.by_algebra(
        Expression(in_radians), Expression(rf"\frac{{{size.numerator} ({in_degrees}) \pi}}{{{size.denominator}}}")
    )
