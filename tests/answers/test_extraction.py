"""Extraction of final answers: tags, boxes, hashes, the last expression, references."""

import time

import pytest

from rlframe.answers.expressions import last_expression
from rlframe.answers.extraction import Convention, boxed_answers, conclusion, final_answer, reference_answer

CONVENTIONS: list[Convention] = ["answer", "boxed", "hash"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<answer>5</answer>", "5"),
        ("<answer>4</answer> no: <answer> 5 </answer>", "5"),
        (r"\boxed{4} <answer>5</answer> \boxed{6}", "5"),
        (r"<answer>The answer is $\boxed{5}$.</answer>", "5"),
        (r"\boxed{4}. No, it is \boxed{5}", "5"),
        (r"\boxed{4} and \boxed{5}", "4; 5"),
        (r"so \boxed{\frac{1}{\sqrt{2}}}.", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {5}", "5"),
        (r"} {\boxed{5} and \boxed{6", "5"),
        (r"so \\boxed{5}", "5"),  # an escape too many
        (r"\fbox{5}", "5"),
        (r"\boxed{\boxed{5}}", "5"),
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
        (r"so it is \frac{1}{3}.", r"\frac{1}{3}"),
        (r"so it is 3\sqrt{2} cm", r"3\sqrt{2}"),
        (r"$ \frac{1}{3} $", r" \frac{1}{3} "),
        ("about 1e-10", "1e-10"),
        ("x = 5.", "5"),
        ("so 2 + 3 = 5", "5"),
        ("the point is (3, 4).", "(3, 4)"),
        ("so it is 2x + 1", "2x + 1"),
        ("There are 3 cats and 4 dogs", "4"),
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
    assert time.process_time() - started < 15  # a quadratic search takes minutes


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        (r"\boxed{2} and \boxed{3}", ["2; 3"]),
        (r"$x = \boxed{1}, y = \boxed{2}$", ["x = 1; y = 2"]),
        (r"\boxed{1}, \boxed{2}, \boxed{3}", ["1; 2; 3"]),
        (r"\boxed{1}\boxed{2}", ["1; 2"]),
        (r"\boxed{1} papers and \boxed{2} bins", ["1; 2"]),
        (r"\boxed{5}, \boxed{5}", ["5"]),
        (r"\boxed{4}. Wait, \boxed{5}", ["4", "5"]),
        (r"\boxed{4}, no, \boxed{5}", ["4", "5"]),
        (r"\boxed{4} " + "We count again, and again. " * 4 + r"\boxed{5}", ["4", "5"]),
        (r"x = \boxed{5}", ["5"]),
        (r"\angle A = 90^\circ = \boxed{90^\circ}", [r"90^\circ"]),
        ("5", []),
    ],
)
def test_boxes_that_stand_together_are_one_answer(text: str, answers: list[str]):
    assert boxed_answers(text) == answers


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("34", "34"),
        ("2 + 3 = 5.\nThe answer is 5. I hope it is right.", "The answer is 5."),
        ("First 3. Then she has 34 apples.", "Then she has 34 apples."),
        ("x = 1\ny = 2", "x = 1; y = 2"),
        ("\\[\n5\n\\]", "\\[\n5\n\\]"),
    ],
)
def test_the_sentence_about_the_answer_counts_in_tags(text: str, sentence: str):
    assert conclusion(text) == sentence


@pytest.mark.parametrize(
    ("reference", "plain"),
    [
        ("1,234", "1,234"),
        ("She has 3 + 4 = <<3+4=7>>7 eggs.\n#### 7", "7"),
        (r"Adding them gives $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"\boxed{\text{Evelyn}}", r"\text{Evelyn}"),
        ("", ""),
    ],
)
def test_a_reference_may_be_a_worked_solution(reference: str, plain: str):
    assert reference_answer(reference) == plain
