"""Exact values of numbers in all their spellings."""

from fractions import Fraction

import pytest

from rlframe.answers.numerals import numeral
from rlframe.answers.reading import read
from rlframe.answers.values import Number, Quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("-5", Fraction(-5)),
        ("5.", Fraction(5)),
        (".5", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        (r"-\frac{2}{4}", Fraction(-1, 2)),
        (r"\frac{-1}{2}", Fraction(-1, 2)),
        (r"\frac{1}{-2}", Fraction(-1, 2)),
        (r"2\frac{1}{2}", Fraction(5, 2)),
        ("-2 1/2", Fraction(-5, 2)),
        (r"0.\overline{3}", Fraction(1, 3)),
        (r"-2.1\overline{36}", Fraction(-47, 22)),
        ("0.(12)", Fraction(4, 33)),
        ("0.1666...", Fraction(1, 6)),
        ("3.14...", None),
        (r"3 \times 10^{8}", Fraction(300000000)),
        (r"1 \cdot 10^{-2}", Fraction(1, 100)),
        ("2^{10}", Fraction(1024)),
        ("10^{999999}", None),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("1 000 000", Fraction(1000000)),
        ("1'000", Fraction(1000)),
        ("1.234,5", Fraction(2469, 2)),
        ("0,111", None),  # the reader decides: a decimal or two numbers
        ("12,34", None),
        ("1 2", None),
        ("thirty-four", Fraction(34)),
        ("one hundred and five", Fraction(105)),
        ("two thousand three hundred", Fraction(2300)),
        ("two thirds", Fraction(2, 3)),
        ("one half", Fraction(1, 2)),
        ("minus three", Fraction(-3)),
        ("a dozen", Fraction(12)),
        ("2.5 million", Fraction(2500000)),
        ("3rd", Fraction(3)),
        ("four three", None),
        ("and", None),
        ("1/0", None),
        ("x", None),
        ("9" * 101, None),
    ],
)
def test_numbers_are_exact(text: str, value: Fraction | None):
    assert numeral(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18 dollars", 18),
        ("18 square feet", 18),
        (r"90^\circ", 90),
        (r"18\text{ cm}^2", 18),
        ("18 apples", 18),
        ("5m", 5),
        (r"18 \text{ thousand}", 18000),
    ],
)
def test_a_number_may_have_a_unit(text: str, value: int):
    number = read(text)
    assert (number.body if isinstance(number, Quantity) else number) == Number(Fraction(value))


@pytest.mark.parametrize("text", [r"18\text{ or }19", "18 or 19", "18 apples or so", "18 x", "18 n"])
def test_alternatives_and_variables_are_no_units(text: str):
    assert not isinstance(read(text), Number | Quantity)
