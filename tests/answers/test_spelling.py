"""The table of spellings: every row's example, and the whole way to plain LaTeX."""

import time

import pytest

from rlframe.answers.reading import read_cached
from rlframe.answers.spelling import plain
from rlframe.answers.table import SPELLINGS, Row


@pytest.mark.parametrize("row", SPELLINGS, ids=lambda row: row.before)
def test_every_row_turns_its_example_as_it_says(row: Row):
    assert row.pattern.sub(row.replacement, row.before) == row.after != row.before
    assert row.literal in row.before


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        (" $5$. ", "5"),
        (r"\(5\)", "5"),
        (r"\[ x + 1 \]", "x + 1"),
        ("**5**", "5"),
        ("`5`", "5"),
        (r"\(5\) or \(6\)", "5 or 6"),
        (r"\$5", r"5\text{ dollars}"),
        ("€5", r"5\text{ euros}"),
        ("$5", r"5\text{ dollars}"),
        ("−5", "-5"),
        ("x  +\n 1", "x + 1"),
        ("1 2", "1 2"),
        ("Therefore, the final answer is: $34$.", "34"),
        ("The answer is 5 or the answer is 6", "5 or the answer is 6"),
        ("The answer is not 5.", "not 5"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"\dfrac{\sqrt{2}}2", r"\frac{\sqrt{2}}{2}"),
        (r"\\frac{1}{2}", r"\frac{1}{2}"),  # an escape too many
        ("2^(n+1)", "2^{n+1}"),
        ("sqrt((x+1)/2)", r"\sqrt{(x+1)/2}"),
        ("x² + ½", r"x^{2} + \frac{1}{2}"),
        ("x₁", "x_{1}"),
        ("３．５", "3.5"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
        ("[0, 1[", "[0, 1)"),
    ],
)
def test_spellings_become_plain_latex(text: str, latex: str):
    assert plain(text) == latex


@pytest.mark.parametrize("text", [r"\frac{1}{2}", "x^{2}", r"5\text{ cm}", "(1, 2)", r"\sqrt{2}", "101_{2}", "yes"])
def test_plain_latex_stays_as_it_is(text: str):
    assert plain(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "1 ", "1", "^{", "9^", "!", " %", "1 a ", "1\\text{", r"\!", "**", r"\(", "$", "answer is ", "√", "\\frac",
        "and ", "the is ", "{", r"\pm ", r"\pmod 5 ", "x = ", "<", "1:", "(1,", r"\text{a} and ", "\\", "²", "[1,",
        "_", "sqrt(", "a, ", ": ", "½", "so ", "1,000", "-",
    ],
)  # fmt: skip
def test_reading_2000_hostile_characters_takes_a_fifth_of_a_second(piece: str):
    text = (piece * 2000)[:2000]

    def seconds() -> float:
        read_cached.cache_clear()
        started = time.process_time()
        read_cached(text)
        return time.process_time() - started

    assert min(seconds() for _ in range(3)) < 0.2
