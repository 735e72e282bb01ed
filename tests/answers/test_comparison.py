"""Comparison by kinds, without algebra: True, False, or None for open."""

import pytest

from rlframe.answers.comparison import Comparison
from rlframe.answers.reading import read
from rlframe.answers.truth import all_true, any_true
from rlframe.answers.values import Value
from rlframe.answers.words import is_word


def same(reference: str, answer: str) -> bool | None:
    return Comparison("ignore").same(read(reference), read(answer))


@pytest.mark.parametrize(
    ("reference", "answer", "truth"),
    [
        ("5", "5.0", True),
        (r"\frac{1}{2}", "0.5", True),
        ("5", "6", False),
        (r"\frac{1}{3}", "0.33", False),
        (r"\frac{1}{3}", "0.333333", True),  # six places
        ("0.3", "0.30000000000000004", True),
        ("0.0000001", "0.0000002", False),  # below 1 the tolerance is relative to the reference
        ("100000000000000000001", "100000000000000000000", False),
        ("50", "50%", True),
        ("0.5", "50%", True),
        ("50", "5%", False),
        ("50", "x", None),
        ("cat", "act", False),
        ("red and blue", "blue and red", True),
        ("(1, 2)", r"\{1, 2\}", False),
        ("(1, 2)", "1, 2", True),  # in the written order
        ("(1, 2)", "2, 1", False),
        ("1, 2", "2, 1", True),
        ("2", "2, 2", True),
        ("2", "2, 3", False),
        ("(0, 1)", "0 < x < 1", True),
        ("(0, 1)", "]0, 1[", True),
        ("(0, 1)", "[0, 1]", False),
        ("x < 3", "y < 3", False),
        ("b > a > c", "c < a < b", True),
        ("|x| < 3", "-3 < x < 3", True),
        ("x > 1 and x < 3", "(1, 3)", True),
        ("x < 1 or x > 3", r"(3, \infty) \cup (-\infty, 1)", True),
        ("101_2", "101_3", False),
        ("101_2", "101", True),  # the question names the base
        ("101_2", "5", False),
        ("5", "101_2", False),
        ("f'", "f", False),
        ("2:4", "1:2", True),
        ("3:45", "1:15", False),  # times
        ("7:32", "7/32", True),
        ("3,14", "3.14", True),
        ("3,14", "3, 14", True),
        ("x = 1, y = 2", "y = 2, x = 1", True),
        ("x = 1, y = 2", "(1, 2)", True),
        ("x = 1, y = 2", "2, 1", False),
        ("x = 5", "y = 5", False),
        ("6", "5 = 6", False),  # contradicts itself
        ("5", "2 + 3 = 5", None),
        ("5", "10/2 = 5", True),
        (r"\frac{2}{3}", r"\frac{2}{3} = 0.67", True),
        (r"\pm 3", "3, -3", True),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1, 2)", True),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "(2, 1)", False),
        ("B", "(B) 12", True),
        ("B", "The correct option is B.", True),
        ("B", "The right choice is not B", False),
        ("B. 12", "12", True),
        ("B. 12", "C. 12", False),
        ("18", r"18 \text{ thousand}", False),
        ("34", "It is not 34", False),
        ("15%", "15 or 0.15", False),  # no hedging between readings of a percentage
        ("A", "(A) or (B)", False),
        (r"n \equiv 3 \pmod 5", "n ≡ 3 (mod 5)", True),
        (r"A \cup B", "B ∪ A", True),
        (r"A \cup B", "A ∩ B", False),
    ],
)
def test_kinds_are_compared_as_a_careful_reader_does(reference: str, answer: str, truth: bool | None):
    assert same(reference, answer) is truth


@pytest.mark.parametrize(
    ("reference", "answer", "ignoring", "comparing"),
    [
        ("5 cm", "5 m", True, False),
        ("5 cm", "0.05 m", True, True),
        ("5 cm", "5", True, True),  # the question names the unit
        ("5", "5 cm", True, True),
        ("5 cm", "5 kg", True, False),
        ("5 apples", "5 pieces of fruit", True, True),  # nouns are no units to convert
        ("60 mph", "60 miles per hour", True, True),
        ("$5", "5 euros", True, False),
        ("$0.50", "50 cents", True, True),
        ("2.5 hours", "2 hours 30 minutes", True, True),
        ("5m", "5", False, False),  # m may be a variable of the problem
        ("5", "5m", True, True),
    ],
)
def test_units_are_ignored_or_compared(reference: str, answer: str, ignoring: bool, comparing: bool):
    values: tuple[Value, Value] = read(reference), read(answer)
    assert (Comparison("ignore").same(*values), Comparison("compare").same(*values)) == (ignoring, comparing)


def test_algebra_decides_what_is_left_open_and_only_that():
    asked = []

    def algebra(reference: str, answer: str, within: object = None) -> bool:
        asked.append((reference, answer))
        return True

    assert Comparison("ignore", algebra).same(read(r"(1, \sqrt{4})"), read("(1, 2)"))
    assert not Comparison("ignore", algebra).same(read(r"(1, \sqrt{4})"), read("(2, 2)"))
    assert asked == [(r"\sqrt{4}", "2")]


def test_open_is_neither_true_nor_false():
    assert (all_true([True, None]), all_true([None, False])) == (None, False)
    assert (any_true([False, None]), any_true([None, True])) == (None, True)


def test_runs_of_letters_are_words_or_products():
    assert all(is_word(run) for run in ("cat", "no", "yes", "east", "Evelyn", "YES"))
    assert not any(is_word(run) for run in ("x", "ab", "abc", "xyz", "mgh", "ABC", "sin"))
