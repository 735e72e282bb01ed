"""Final answers: extraction, plain spelling, and comparison without algebra."""

import time
from fractions import Fraction

import pytest

from rlframe.reward.answer import (
    Convention,
    final_answer,
    last_expression,
    normalize,
    number,
    reference_answer,
    same_number,
    too_big,
)

CONVENTIONS: list[Convention] = ["answer", "boxed", "hash"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>5</answer>", "5"),
        ("<answer>4</answer> no: <answer> 5 </answer>", "5"),
        (r"\boxed{4} <answer>5</answer> \boxed{6}", "5"),
        (r"<answer>The answer is $\boxed{5}$.</answer>", "5"),
        (r"\boxed{4} and \boxed{5}", "5"),
        (r"so \boxed{\frac{1}{\sqrt{2}}}.", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {5}", "5"),
        (r"} {\boxed{5} and \boxed{6", "5"),
        (r"\boxed{4} #### 5", "4"),
        ("2 + 3 = 5\n#### 5\nthank you", "5"),
        ("#### 4\n#### 5", "5"),
        (r"<answer> </answer> \boxed{5}", "5"),
        ("<answer>5", None),
        ("</answer>5<answer>", None),
        ("<answer> </answer>", None),
        ("####", None),
        (r"\boxed{5", None),
        (r"\boxed{}", None),
        ("2 + 3 = 5", None),
        ("", None),
    ],
)
def test_the_final_answer_is_tagged_else_boxed_else_after_hashes(text: str, answer: str | None):
    assert final_answer(text, CONVENTIONS) == answer


@pytest.mark.parametrize(
    ("conventions", "answer"),
    [
        (["answer", "boxed", "hash", "last"], "1"),
        (["boxed", "answer"], "2"),
        (["hash"], "3"),
        (["last", "answer"], "4"),
    ],
)
def test_the_first_convention_with_an_answer_counts(conventions: list[Convention], answer: str):
    assert final_answer("<answer>1</answer> \\boxed{2}\n#### 3\nso it is 4.", conventions) == answer


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("Thus it is 5.", "5"),
        ("from 3 to 1,234.50 each", "1,234.50"),
        (r"so $x=5$ and $\frac{1}{2}$.", r"\frac{1}{2}"),
        (r"thus \(2\sqrt{3}\) is it", r"2\sqrt{3}"),
        ("thus\n\\[\nx + 1\n\\]", "\nx + 1\n"),
        ("It costs $5 and then $6", "$6"),  # two prices
        ("is -5", "-5"),
        ("is 10/4 or 12%", "12%"),
        ("**12**", "12"),
        ("I do not know", None),
        ("H2O", None),
    ],
)
def test_the_last_expression_is_a_formula_or_a_number(text: str, last: str | None):
    assert last_expression(text) == last


@pytest.mark.parametrize(
    "piece", [r"\boxed{", "<answer>", "</answer>", "####", "}{", "\\", r"\boxed{}", r"\(", r"\[", "$", "1,234", "1/"]
)
def test_extraction_from_hundred_thousand_pieces_takes_linear_time(piece: str):
    started = time.process_time()
    final_answer(piece * 100_000, [*CONVENTIONS, "last"])
    assert time.process_time() - started < 3.0


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (" $5$. ", "5"),
        (r"\(5\)", "5"),
        (r"\[ x + 1 \]", "x + 1"),
        ("**5**", "5"),
        (r"\(5\) or \(6\)", r"\(5\) or \(6\)"),
        (r"\$1,234,567.5", "1234567.5"),
        ("€1,234", "1234"),
        ("−5", "-5"),
        ("1{,}234", "1234"),
        (r"10,\!000", "10000"),
        (r"10\,000", "10000"),
        (r"\text{ Tuesday }", "Tuesday"),
        (r"\textbf{Tuesday}", "Tuesday"),
        (r"\mathrm{Tuesday}", "Tuesday"),
        ("x  +\n 1", "x + 1"),
        ("1 2", "1 2"),
        ("(1,234)", "(1,234)"),
        ("1,2", "1,2"),
        ("12,34", "12,34"),
    ],
)
def test_plain_spelling_drops_currency_and_thousands_but_keeps_pairs(answer: str, plain: str):
    assert normalize(answer) == plain


@pytest.mark.parametrize(
    ("reference", "plain"),
    [
        ("1,234", "1234"),
        ("She has 3 + 4 = <<3+4=7>>7 eggs.\n#### 7", "7"),
        (r"Adding them gives $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{\text{Evelyn}}", "Evelyn"),
        ("", ""),
    ],
)
def test_a_reference_may_be_a_worked_solution(reference: str, plain: str):
    assert reference_answer(reference) == plain


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("-5", Fraction(-5)),
        ("5.", Fraction(5)),
        (".5", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        (r"-\dfrac{2}{4}", Fraction(-1, 2)),
        (r"\frac{-1}{2}", Fraction(-1, 2)),
        (r"0.\overline{3}", Fraction(1, 3)),
        (r"-2.1\overline{36}", Fraction(-47, 22)),
        ("18 dollars", Fraction(18)),
        ("18 square feet", Fraction(18)),
        (r"90^\circ", Fraction(90)),
        ("1/0", None),
        (r"18\text{ cm}^2", Fraction(18)),
        (r"18 \text{ thousand}", None),
        (r"18\text{ or }19", None),
        ("18 thousand", None),
        ("18 or 19", None),
        ("18 apples or so", None),
        ("18 x", None),
        ("x", None),
        ("9" * 101, None),
    ],
)
def test_numbers_are_exact_with_or_without_a_unit(answer: str, value: Fraction | None):
    parsed = number(answer)
    assert (parsed and parsed[0]) == value


@pytest.mark.parametrize(
    ("reference", "answer", "same"),
    [
        ("5", "5.0", True),
        (r"\frac{1}{2}", "0.5", True),
        ("5", "6", False),
        (r"\frac{1}{3}", "0.33", False),
        (r"\frac{1}{3}", "0.333333", None),
        ("0.3", "0.30000000000000004", None),
        ("0.0000001", "0.0000002", False),  # below 1 the tolerance is relative to the reference
        ("50", "50%", True),
        ("0.5", "50%", True),
        ("50", "5%", False),
        ("50", "x", None),
    ],
)
def test_math_verify_decides_numbers_that_rounding_could_make_equal(reference: str, answer: str, same: bool | None):
    assert same_number(reference, answer) is same


@pytest.mark.parametrize(
    "answer",
    [
        "2^{1000000}",
        "2**-(1000000)",
        "10^{10^{10}}",
        "9^9^9",
        "x^{9^{9^9}}",
        "(10^9)!",
        "1000000000!",
        "{10^{9}}!",
        r"\binom{10^9}{5*10^8}",
        r"\sum_{k=1}^{10000000} k",
        r"\prod_{k=1}^{10^8} k",
        "(" * 900 + "1" + ")" * 900,
        "{[" * 900,
        "2^{" + "9" * 5000 + "}",
    ],
    ids=lambda answer: answer[:24],
)
def test_answers_that_sympy_never_finishes_are_too_big(answer: str):
    assert too_big(answer) is not None


@pytest.mark.parametrize(
    "answer",
    [
        "2^{2005}",
        "10^{100}",
        "10^{10^{2}}",
        "(x^{30})^{5}",
        "2005!",
        r"\frac{100!}{98!}",
        r"\binom{100}{50}",
        r"\sum_{k=1}^{\infty} \frac{1}{k^2}",
        r"\sum_{k=1}^{n} k",
        "123456789123456789",
        "((((((x))))))",
    ],
)
def test_answers_of_data_sets_are_not_too_big(answer: str):
    assert too_big(answer) is None


@pytest.mark.parametrize("piece", ["1 ", "1", "^{", "9^", "!", " %", "1 a ", "1\\text{", r"\!", "**", r"\("])
def test_reading_2000_characters_takes_less_than_a_tenth_of_a_second(piece: str):
    answer = (piece * 2000)[:2000]

    def seconds() -> float:
        started = time.process_time()
        plain = normalize(answer)
        number(plain)
        too_big(plain)
        return time.process_time() - started

    assert min(seconds() for _ in range(3)) < 0.1
