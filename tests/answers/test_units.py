"""Units: dimension and size, and where a number ends."""

from fractions import Fraction

import pytest

from rlframe.answers.units import compound, parse_unit, split_unit


@pytest.mark.parametrize(
    ("unit", "same"),
    [
        ("km/h", "kilometers per hour"),
        ("mph", "miles per hour"),
        ("m/s^2", "meters per second^2"),
        ("cm^2", "square centimeters"),
        ("cubic metres", "m^3"),
        ("mL", "cubic cm"),
        ("ft", "feet"),
        ("USD", "dollars"),
    ],
)
def test_names_of_one_unit_have_one_dimension_and_size(unit: str, same: str):
    first, second = parse_unit(unit), parse_unit(same)
    assert first.dimension is not None
    assert (first.dimension, first.size) == (second.dimension, second.size)


def test_sizes_are_exact():
    assert parse_unit("km").size / parse_unit("cm").size == 100_000
    assert parse_unit("km/h").size == Fraction(5, 18)  # 1000 m in 3600 s
    assert parse_unit("liters").size == Fraction(1, 1000)  # of a cubic meter
    assert parse_unit("apples").dimension is None


@pytest.mark.parametrize(
    ("text", "body", "unit"),
    [
        (r"5 \text{ cm}", "5", " cm"),
        ("5 cm", "5", "cm"),
        (r"3\sqrt{2} \text{ m/s}", r"3\sqrt{2}", " m/s"),
        ("90^{\\circ}", "90", "°"),
        ("5 red apples", "5", "red apples"),
        ("x + 5", "x + 5", None),
        ("5 x", "5 x", None),
        ("3 mod", "3 mod", None),
    ],
)
def test_a_unit_is_split_from_its_number(text: str, body: str, unit: str | None):
    assert split_unit(text)[:2] == (body, unit)


def test_a_letter_at_a_number_may_be_a_variable():
    assert split_unit("5m") == ("5", "m", True)
    assert split_unit("5 m") == ("5", "m", False)


def test_units_of_one_dimension_add_up():
    assert compound("2 hours 30 minutes") == (Fraction(5, 2), "hours")
    assert compound("5 feet 6 inches") == (Fraction(11, 2), "feet")
    assert compound("5 feet 6 pounds") is None
    assert compound("5 feet") is None
