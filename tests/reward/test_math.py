"""The math reward: equality with the reference, references that are refused, and the cost of hostile answers."""

import re
from collections.abc import Iterator

import pytest

from rlframe.answers.algebra import equivalent
from rlframe.reward.math import Math
from tests.tiny.math_judge import TIMEOUT_S, judge, make, score
from tests.tiny.math_pairs import HOSTILE


@pytest.fixture(scope="module")
def math() -> Iterator[Math]:
    reward = make(TIMEOUT_S)
    reward.start()
    yield reward
    reward.close()


# reference, answer, score
TABLE = [
    ("5", "5", 1.0),
    ("5", "5.0", 1.0),
    ("5", "+05", 1.0),
    ("5", "$5$", 1.0),
    ("5", "5.", 1.0),
    ("5", "6", 0.0),
    ("-5", "5", 0.0),
    ("0.1", "0.10", 1.0),
    ("0.3", "0.30000000000000004", 1.0),
    ("1234", "1,234", 1.0),
    ("1234567", "$1,234,567$", 1.0),
    ("12", "1 2", 0.0),
    ("18", "18 dollars", 1.0),
    ("5", "x = 5", 1.0),
    ("5", "5,6", 0.0),  # no hedging
    ("5", "5 or 6", 0.0),
    ("5", r"3 \text{ and } 5", 0.0),
    ("0.5", "1/2", 1.0),
    ("1/2", r"\frac{1}{2}", 1.0),
    ("1/2", r"\dfrac{2}{4}", 1.0),
    (r"\frac{1}{3}", "0.333333", 1.0),  # math-verify: six decimals
    (r"\frac{1}{3}", "0.33", 0.0),
    (r"\sqrt{8}", r"2\sqrt{2}", 1.0),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}", 1.0),
    (r"\sqrt{8}", r"2\sqrt{3}", 0.0),
    ("x^2 + 2x + 1", "(x+1)^2", 1.0),
    ("x^2 + 2x + 1", "(x-1)^2", 0.0),
    ("2^{10}", "1024", 1.0),
    (r"\pi", "3.14159265", 1.0),
    (r"\{1, 2\}", r"\{2, 1\}", 1.0),
    ("1, 2", "2,1", 1.0),
    ("(1, 2)", "(2, 1)", 0.0),
    ("(1, 2)", "[1, 2]", 0.0),
    (r"90^\circ", "90", 1.0),
    (r"5 \text{ cm}", "5", 1.0),
    (r"\infty", r"\infty", 1.0),
    ("A", r"\text{A}", 1.0),
    ("A", "B", 0.0),
    ("Tuesday", r"\text{tuesday}", 1.0),
    ("east", "seat", 0.0),  # math-verify alone reads e·a·s·t: equal
]


@pytest.mark.parametrize(("reference", "answer", "expected"), TABLE)
def test_a_right_answer_scores_one_and_a_wrong_one_zero(math: Math, reference: str, answer: str, expected: float):
    verdict = judge(math, reference, rf"so \boxed{{{answer}}}")
    assert (verdict.score, verdict.status) == (expected, "scored"), verdict.detail


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("50", r"50\%", 1.0),  # "what percentage …?": the sign is the unit
        (r"50\%", "50", 1.0),
        (r"12.5\%", r"12.5 \text{ percent}", 1.0),
        ("0.5", r"50\%", 1.0),  # true as mathematics
        (r"50\%", "0.5", 1.0),
        (r"\frac{1}{2}", r"50\%", 1.0),
        (r"\frac{50}{3}", r"\frac{50}{3}\%", 1.0),
        ("50", "0.5", 0.0),  # no percent sign, no hundredths
        ("50", r"5\%", 0.0),
        (r"50\%", r"0.5\%", 0.0),
        (r"50\%", "50.0%", 1.0),
    ],
)
def test_a_percent_sign_on_one_side_is_a_unit_or_means_hundredths(
    math: Math, reference: str, answer: str, expected: float
):
    assert score(math, reference, answer) == expected


@pytest.mark.parametrize(
    ("reference", "what"),
    [
        ("", "is empty"),
        (r"\boxed{ } $ $", "is empty"),
        (r"\frac{1}{", "does not read"),
        ("[1, 2", "does not read"),
        (r"\frac{1}{0}", "does not read"),
        ("1" * 2001, "2001 characters"),
        ("10^{10^{10}}", "exponent of 10"),
        ("(" * 35 + "x" + ")" * 35, "takes more than 1 s"),
        (r"First \boxed{2}. " + "Now we look at the other case. " * 3 + r"It gives \boxed{3}", "two answers.*2.*3"),
    ],
)
def test_a_reference_that_no_answer_can_be_compared_with_is_refused(math: Math, reference: str, what: str):
    with pytest.raises(ValueError, match=what):
        math.check(reference)


def test_checking_numbers_and_words_starts_no_process():
    math = make(TIMEOUT_S)
    for reference in (
        "18",
        "1,234",
        r"\frac{1}{2}",
        "Tuesday",
        r"\text{north}",
        r"50\%",
        "#### 5",
        "3:45",
        "(1, 2)",
        "5 cm",
    ):
        math.check(reference)
    assert math._process is None


def test_the_reference_comes_first():
    assert equivalent("5", "x = 5") == "equal"
    assert equivalent("2x + y = 5", "5") == "different"
    assert equivalent("5", "2x + y = 5") == "equal"  # of a question for 2x + y


def test_answers_vote_together_if_either_answers_the_other(math: Math):
    assert math.same_answer("1/2", "0.5")
    assert math.same_answer("5", "2x + y = 5") and math.same_answer("2x + y = 5", "5")
    assert not math.same_answer("5", "6")


def test_a_reference_with_two_far_boxes_fails_for_want_of_a_judge(math: Math):
    reference = r"First \boxed{2}. " + "Now we look at the other case. " * 3 + r"It gives \boxed{3}"
    verdict = judge(math, reference, r"\boxed{3}")
    assert (verdict.score, verdict.status) == (None, "failed")
    math.check(reference.replace("{3}", "{2.0}"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("it is 5", "no final answer in any of: answer, boxed, hash"),
        ("<answer>" + "1" * 2001 + "</answer>", "2001 characters, at most 2000"),
        ("<answer>2^{1000000}</answer>", r"exponent of 10\^6 or more"),
        ("<answer>" + "(" * 900 + "1" + ")" * 900 + "</answer>", "nests more than"),
        (r"<answer>\frac{1}{</answer>", "answer unreadable"),
    ],
)
def test_an_answer_that_cannot_be_read_scores_zero_and_says_why(math: Math, text: str, why: str):
    verdict = judge(math, "5", text)
    assert (verdict.score, verdict.status) == (0.0, "unparseable")
    assert re.search(why, verdict.detail)


def test_an_unreadable_reference_fails_except_for_the_same_text(math: Math):
    assert score(math, r"\frac{1}{", r"\frac{1}{") == 1.0
    verdict = judge(math, r"\frac{1}{", r"\boxed{\sqrt2}")
    assert (verdict.score, verdict.status) == (None, "failed")
    assert "reference unreadable" in verdict.detail


def test_hostile_answers_score_zero_in_time_and_leave_a_healthy_verifier():
    math = make(timeout_s=0.3)
    score(math, r"\sqrt{2}", r"\sqrt{3}")  # starts the process, whose start timeout_s does not bound
    statuses, seconds = [], []
    for answer in HOSTILE:
        verdict = judge(math, "7 + x", f"<answer>{answer}</answer>")
        assert verdict.score == 0.0, answer
        statuses.append(verdict.status)
        seconds.append(verdict.seconds)
        assert score(math, r"\sqrt{8}", r"2\sqrt{2}") == 1.0
    assert statuses.count("timeout") >= 6
    assert sorted(seconds)[len(seconds) * 9 // 10] < 0.3 + 2.0
    assert 0.3 <= max(seconds) < 20  # minutes and more without a bound
    math.close()


def test_the_next_answer_after_a_timeout_is_judged_as_usual(math: Math):
    score(math, r"\sqrt{2}", r"\sqrt{3}")
    verdict = judge(math, "5", r"\boxed{9!!!!}")
    assert (verdict.score, verdict.status) == (0.0, "timeout")
    assert TIMEOUT_S <= verdict.seconds < TIMEOUT_S + 20
    assert score(math, r"\sqrt{8}", r"2\sqrt{2}") == 1.0
