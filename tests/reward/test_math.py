"""The math reward: what counts as the answer, what equals the reference, and what hostile answers cost."""

import time
from collections.abc import Iterator

import pytest

from rlframe.reward.math import Math, equivalent, final_answer, normalize
from rlframe.types import Completion, Prompt, Verdict

TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def math() -> Iterator[Math]:
    reward = Math(name="math", weight=1.0, timeout_s=TIMEOUT_S, max_answer_chars=2000)
    reward.start()
    yield reward
    reward.close()


def judge(math: Math, reference: str, text: str) -> Verdict:
    prompt = Prompt(id="p", messages=[], token_ids=[], reference=reference, task="math")
    return math(prompt, Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop"))


def score(math: Math, reference: str, answer: str) -> float | None:
    return judge(math, reference, f"<answer>{answer}</answer>").score


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
def test_the_final_answer_is_the_last_tagged_else_boxed_else_after_the_hashes(text: str, answer: str | None):
    assert final_answer(text) == answer


@pytest.mark.parametrize("piece", [r"\boxed{", "<answer>", "</answer>", "####", "}{", "\\", r"\boxed{}"])
def test_finding_it_takes_linear_time_in_a_completion_of_hundred_thousand_pieces(piece: str):
    started = time.perf_counter()
    final_answer(piece * 100_000)
    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (" $5$. ", "5"),
        (r"\$1,234,567.5", "1234567.5"),
        ("1{,}234", "1234"),
        (r"10,\!000", "10000"),
        (r"\text{ Tuesday }", "Tuesday"),
        ("x  +\n 1", "x + 1"),
        ("1 2", "1 2"),
        ("(1,234)", "(1,234)"),
        ("1,2", "1,2"),
        ("12,34", "12,34"),
    ],
)
def test_dollars_thousands_and_white_space_do_not_matter_but_pairs_stay_pairs(answer: str, plain: str):
    assert normalize(answer) == plain


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
    ("0.3", "0.30000000000000004", 0.0),  # numbers are compared exactly, not as floats
    ("1234", "1,234", 1.0),
    ("1234567", "$1,234,567$", 1.0),
    ("12", "1 2", 0.0),
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
    ("east", "seat", 0.0),  # math-verify alone: e·a·s·t, equal
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
        ("50", "0.5", 0.0),  # without a sign nobody said hundredths
        ("50", r"5\%", 0.0),
        (r"50\%", r"0.5\%", 0.0),
        (r"50\%", "50.0%", 1.0),
    ],
)
def test_a_percent_sign_on_one_side_is_a_unit_or_means_hundredths(
    math: Math, reference: str, answer: str, expected: float
):
    assert score(math, reference, answer) == expected


def test_where_math_verify_reads_both_sides_the_reward_agrees_with_it(math: Math):
    from math_verify import parse, verify

    for reference, answer, expected in TABLE:
        if reference in ("east", "0.3") or answer == "5.":  # the rows on which this reward is stricter or reads more
            continue
        gold, found = (parse(f"${side}$", parsing_timeout=None) for side in (reference, answer))  # pyright: ignore
        assert float(verify(gold, found, timeout_seconds=None)) == expected, (reference, answer)


def test_the_reference_comes_first():
    assert equivalent("5", "x = 5") == "equal"
    assert equivalent("6", "5 = 6") == "equal"  # the last of an answer's chain counts
    assert equivalent("5 = 6", "5") == "different"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("it is 5", "no final answer"),
        ("<answer>" + "1" * 2001 + "</answer>", "2001 characters, at most 2000"),
        ("<answer>2^{1000000}</answer>", "exponent of more than 6 digits"),
        ("<answer>2**-(1000000)</answer>", "exponent of more than 6 digits"),
        ("<answer>" + "(" * 900 + "1" + ")" * 900 + "</answer>", "nests more than 40 brackets"),
        ("<answer>" + "{[" * 900 + "</answer>", "nests more than 40 brackets"),
        (r"<answer>\frac{1}{</answer>", "does not read the answer"),
    ],
)
def test_an_answer_that_cannot_be_read_scores_zero_and_says_why(math: Math, text: str, why: str):
    verdict = judge(math, "5", text)
    assert (verdict.score, verdict.status) == (0.0, "unparseable")
    assert why in verdict.detail


def test_a_reference_that_cannot_be_read_is_our_failure_except_for_the_very_same_answer(math: Math):
    assert score(math, r"\frac{1}{", r"\frac{1}{") == 1.0
    verdict = judge(math, r"\frac{1}{", r"\boxed{\frac12}")
    assert (verdict.score, verdict.status) == (None, "failed")
    assert "reference unreadable" in verdict.detail


@pytest.mark.parametrize(
    "answer",
    [
        "9^{9^{9^9}}",
        "10^{10^{10}}",
        "[" * 5000 + "1" + "]" * 5000,
        r"\frac{1}{" * 39 + "2" + "}" * 39,
        r"\sqrt" * 300 + "2",
        "1+" * 900 + "1",
    ],
    ids=lambda answer: answer[:20],
)
def test_a_hostile_answer_scores_zero_within_its_timeout(math: Math, answer: str):
    score(math, r"\sqrt{2}", r"\sqrt{3}")  # the process is up: its start is bounded, but not by timeout_s
    started = time.monotonic()
    verdict = judge(math, "7 + x", f"<answer>{answer}</answer>")
    assert time.monotonic() - started < TIMEOUT_S + 1.0
    assert verdict.score == 0.0
    assert verdict.status in ("timeout", "unparseable", "scored")


def test_after_a_timeout_the_next_answer_is_judged_as_if_nothing_had_been(math: Math):
    score(math, r"\sqrt{2}", r"\sqrt{3}")
    verdict = judge(math, "5", r"\boxed{(10^9)!}")
    assert (verdict.score, verdict.status) == (0.0, "timeout")
    assert TIMEOUT_S <= verdict.seconds < TIMEOUT_S + 1.0
    assert score(math, r"\sqrt{8}", r"2\sqrt{2}") == 1.0
