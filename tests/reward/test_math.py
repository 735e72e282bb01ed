"""The math reward: equality with the reference, differences from math-verify, and the cost of hostile answers."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlframe.reward.math import Math, equivalent
from rlframe.types import Completion, Prompt, Verdict
from tests.tiny.math_pairs import HOSTILE, mix

TIMEOUT_S = 1.0
GSM8K = Path(__file__).parents[2].parent / "shared/data/gsm8k/test.jsonl"


def make(timeout_s: float) -> Math:
    return Math(
        name="math", weight=1.0, extract=["answer", "boxed", "hash"], timeout_s=timeout_s, max_answer_chars=2000
    )


@pytest.fixture(scope="module")
def math() -> Iterator[Math]:
    reward = make(TIMEOUT_S)
    reward.start()
    yield reward
    reward.close()


def judge(math: Math, reference: str, text: str) -> Verdict:
    prompt = Prompt(id="p", messages=[], token_ids=[], reference=reference, task="math")
    return math(prompt, Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop"))


def score(math: Math, reference: str, answer: str) -> float | None:
    return judge(math, reference, f"<answer>{answer}</answer>").score


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


def plain_math_verify(reference: str, answer: str) -> float:
    """math-verify's score, called as in its manual: defaults, a formula as reference, a boxed answer in a sentence."""
    from math_verify import parse, verify

    return float(verify(parse(f"${reference}$"), parse(rf"so $\boxed{{{answer}}}$")))


def test_reward_and_math_verify_agree_and_are_right_on_320_pairs(math: Math):
    pairs = mix(320, seed=0)
    assert len({pair.kind for pair in pairs}) == 16
    assert 130 < sum(pair.equal for pair in pairs) < 190
    for pair in pairs:
        verdict = judge(math, pair.reference, rf"so $\boxed{{{pair.answer}}}$")
        assert verdict.status == "scored", (pair, verdict)
        assert verdict.score == plain_math_verify(pair.reference, pair.answer) == float(pair.equal), pair


# reference, answer, the reward's score, math-verify's, why they differ
SURPRISES = [
    ("50", r"50\%", 1.0, 0.0, "it reads no percent sign inside a box"),
    ("50", "50 percent", 1.0, 0.0, "it reads no percent sign inside a box"),
    ("0.5", r"50\%", 1.0, 0.0, "it reads no percent sign inside a box"),
    (r"\frac{1}{2}", r"50\%", 1.0, 0.0, "it reads no percent sign inside a box"),
    (r"50\%", "0.5", 1.0, 0.0, "it takes the reference's percent sign for a unit only"),
    ("east", "seat", 0.0, 1.0, "it reads words as products of letters"),
    ("no", "on", 0.0, 1.0, "it reads words as products of letters"),
    ("18", "18 dollars", 1.0, 0.0, "its list of units has no dollars, and d·o·l·l·a·r·s is left"),
    (r"\text{5 cm}", "5", 1.0, 0.0, r"it reads a unit inside \text{} as a name"),
    ("0.0000001", "0.0000002", 0.0, 1.0, "it rounds to six decimals, also what is all below them"),
    ("5", "5.", 1.0, 0.0, "it does not read a final period in a box"),
    ("1,2,3", "1,2,3.", 1.0, 0.0, "it does not read a final period in a box"),
    ("€18", "18", 1.0, 0.0, "it reads dollars only"),
    ("10000", r"10\,000", 1.0, 0.0, "it reads thin spaces of thousands as 10·000"),
    (r"0.\overline{3}", r"\frac{1}{3}", 1.0, 0.0, "it does not read repeating decimals"),
]


@pytest.mark.parametrize(("reference", "answer", "ours", "its", "why"), SURPRISES)
def test_every_difference_from_math_verify_is_known(
    math: Math, reference: str, answer: str, ours: float, its: float, why: str
):
    assert judge(math, reference, rf"so $\boxed{{{answer}}}$").score == ours, why
    assert plain_math_verify(reference, answer) == its, why


# reference, answer, score of both: surprises of math-verify that the reward shares
SHARED_SURPRISES = [
    (r"5 \text{ cm}", r"5 \text{ m}", 1.0),  # units are not compared
    ("18", r"18 \text{ thousand}", 1.0),  # a number word in \text is a unit
    ("(1,2)", "1,2", 1.0),  # a pair, an open interval and a set of two look alike
    ("2", "2, 2", 1.0),  # a set
    ("A", "a", 1.0),
    ("AB", "BA", 1.0),  # a product
    ("10:30", "1/3", 1.0),  # a ratio
    ("2500", "2.5e3", 0.0),  # e is Euler's
    (r"\frac{\pi}{4}", r"45^\circ", 0.0),  # degrees are a unit
    ("[1,2]", r"1 \le x \le 2", 0.0),  # in the other order they are equal
    ("5 = 6", "5", 0.0),
    ("6", "5 = 6", 1.0),  # the last of an answer's chain counts
]


@pytest.mark.parametrize(("reference", "answer", "both"), SHARED_SURPRISES)
def test_surprises_of_math_verify_are_left_alone(math: Math, reference: str, answer: str, both: float):
    assert judge(math, reference, rf"so $\boxed{{{answer}}}$").score == both
    assert plain_math_verify(reference, answer) == both


@pytest.mark.skipif(not GSM8K.exists(), reason=f"no GSM8K at {GSM8K}")
def test_gsm8k_references_equal_seven_phrasings_and_no_changed_number(math: Math):
    solutions = [json.loads(line)["answer"] for line in GSM8K.read_text().splitlines()]
    assert len(solutions) == 1319
    for solution in solutions:
        reference = solution.partition("####")[2].strip()
        n = int(reference.replace(",", ""))
        right = [
            solution,
            f"<answer>{reference}</answer>",
            f"<answer>${n:,}.00</answer>",
            f"<think>…</think> <answer>{n} dollars</answer>",
            rf"Therefore $\boxed{{{n}}}$.",
            rf"\boxed{{x = {n}}}",
            f"#### **{n}**",
        ]
        for text in right:
            assert judge(math, reference, text).score == 1.0, (reference, text)
        assert judge(math, solution, right[1]).score == 1.0  # the whole solution as reference
        for wrong in {str(n + 1), f"{n}0", f"{n}.5", rf"\frac{{{n}}}{{7}}", str(-n)} - {
            "0",
            "00",
            "-0",
        }:
            if n or "frac" not in wrong:
                assert judge(math, reference, f"<answer>{wrong}</answer>").score == 0.0, (reference, wrong)


# reference, equal answer, different answer, in the style of MATH
MATH_STYLE = [
    (r"\boxed{\frac{3}{4}}", r"\dfrac{3}{4}", r"\dfrac{4}{3}"),
    (r"\frac43", "4/3", "3/4"),
    (r"-\frac{1}{2}", r"\frac{-1}{2}", r"\frac{1}{2}"),
    (r"\dfrac{\sqrt{3}}{2}", r"\frac{\sqrt3}{2}", r"\frac{\sqrt2}{2}"),
    (r"3\sqrt{13}", r"\sqrt{117}", r"\sqrt{116}"),
    (r"\text{Evelyn}", "Evelyn", "Angela"),
    (r"\text{(C)}", "C", "B"),
    (r"\text{even}", r"\textbf{even}", "odd"),
    (r"90^\circ", "90", "91"),
    (r"120^{\circ}", r"120^\circ", r"60^\circ"),
    (r"60 \text{ inches}", "60", "61"),
    (r"15\mbox{ cm}^2", r"15 \text{ cm}^2", "16"),
    (r"\$32,\!000", "32000", "3200"),
    (r"10\%", r"10 \%", r"11\%"),
    (r"[-2,7]", r"\left[-2,7\right]", "[-2,7)"),
    (r"(-\infty, -5] \cup [5, \infty)", r"[5, \infty) \cup (-\infty, -5]", r"[5, \infty)"),
    (r"(3, \frac{\pi}{2})", r"\left( 3, \frac{\pi}{2} \right)", r"(3, \pi)"),
    (r"\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}", r"\begin{bmatrix}-1&0\\0&-1\end{bmatrix}",
     r"\begin{pmatrix} 1 & 0 \\ 0 & 1 \end{pmatrix}"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    (r"x^3+3x-6", r"3x + x^3 - 6", r"x^3+3x+6"),
    (r"y = -2x + 3", r"y = 3 - 2x", r"y = 2x + 3"),
    (r"1,-2", "-2, 1", "1, 2"),
    (r"\{1,2,5\}", r"5, 2, 1", r"\{1,2\}"),
    (r"6 - 5i", "-5i + 6", "6 + 5i"),
    (r"2 \pm \sqrt{3}", r"2+\sqrt{3}, 2-\sqrt{3}", r"2+\sqrt{3}"),
    (r"0.\overline{12}", r"\frac{4}{33}", "0.12"),
    (r"2\frac{1}{3}", r"\frac{7}{3}", r"\frac{2}{3}"),
    (r"e^{2}", "e^2", "e^3"),
    (r"\frac{n(n+1)}{2}", r"\frac{n^2+n}{2}", r"\frac{n^2}{2}"),
    (r"\log_2 3", r"\frac{\ln 3}{\ln 2}", r"\log_3 2"),
    (r"\pi r^2", r"r^2 \pi", r"2 \pi r"),
    (r"x \in [0, 1]", "[0, 1]", "(0, 1)"),
    (r"11,\! 111", "11111", "1111"),
]  # fmt: skip


@pytest.mark.parametrize(("reference", "equal", "different"), MATH_STYLE)
def test_references_in_the_style_of_math_are_judged(math: Math, reference: str, equal: str, different: str):
    math.check(reference)
    assert judge(math, reference, rf"Thus \boxed{{{equal}}}.").score == 1.0
    assert judge(math, reference, rf"Thus \boxed{{{different}}}.").score == 0.0


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
    ],
)
def test_a_reference_that_no_answer_can_be_compared_with_is_refused(math: Math, reference: str, what: str):
    with pytest.raises(ValueError, match=what):
        math.check(reference)


def test_checking_numbers_and_words_starts_no_process():
    math = make(TIMEOUT_S)
    for reference in ("18", "1,234", r"\frac{1}{2}", "Tuesday", r"\text{north}", r"50\%", "#### 5"):
        math.check(reference)
    assert math._process is None


def test_the_reference_comes_first():
    assert equivalent("5", "x = 5") == "equal"
    assert equivalent("6", "5 = 6") == "equal"  # the last of an answer's chain counts
    assert equivalent("5 = 6", "5") == "different"


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
