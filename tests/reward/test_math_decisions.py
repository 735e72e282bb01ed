"""The math reward's decisions: beside math-verify's, on unclear pairs, and on references of GSM8K and MATH's style."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlframe.reward.math import Math
from tests.tiny.math_judge import TIMEOUT_S, judge, make, score
from tests.tiny.math_pairs import mix

GSM8K = Path(__file__).parents[2].parent / "shared/data/gsm8k/test.jsonl"


@pytest.fixture(scope="module")
def math() -> Iterator[Math]:
    reward = make(TIMEOUT_S)
    reward.start()
    yield reward
    reward.close()


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


# reference, answer, the reward's score: a careful reader's
DECISIONS = [
    (r"5 \text{ cm}", r"5 \text{ m}", 1.0),  # units: ignore
    ("(1,2)", "1,2", 1.0),  # in the written order
    ("(1,2)", r"\{1,2\}", 0.0),  # a pair is no set
    ("2", "2, 2", 1.0),  # a set
    ("A", "a", 1.0),
    ("AB", "BA", 1.0),  # a product
    ("18", r"18 \text{ thousand}", 0.0),
    ("10:30", "1/3", 0.0),  # a time is no ratio
    ("2500", "2.5e3", 1.0),
    (r"\frac{\pi}{4}", r"45^\circ", 1.0),
    ("[1,2]", r"1 \le x \le 2", 1.0),
    ("5 = 6", "5", 0.0),
    ("6", "5 = 6", 0.0),  # contradicts itself
    ("3m", "3", 0.0),  # math-verify takes m for meters
    (r"2^{-99}", r"2^{-98}", 0.0),
    (r"y''-y'", r"y'-y''", 0.0),
    (r"\sqrt{2}", "2^{0.5}", 1.0),
    ("1.41", r"\sqrt{2} \approx 1.41", 1.0),
    ("1.5", r"\sqrt{2} \approx 1.5", 0.0),
    ("3+4i", r"3 + 4\mathrm{i}", 1.0),
    ("x < 1", "-x > -1", 1.0),
    (r"(-\infty,2)\cup(2,\infty)", r"\mathbb{R}\setminus\{2\}", 1.0),
    ("cat", "act", 0.0),
    (r"\text{odd yes}", r"\text{yes odd}", 0.0),
    (r"E_1 + 1", "1 + E_1", 1.0),  # math-verify cannot read E with an index
]


@pytest.mark.parametrize(("reference", "answer", "expected"), DECISIONS)
def test_unclear_pairs_are_decided_as_a_careful_reader_would(math: Math, reference: str, answer: str, expected: float):
    assert judge(math, reference, rf"so $\boxed{{{answer}}}$").score == expected


def test_units_are_compared_if_the_config_says_so():
    math = make(TIMEOUT_S, units="compare")
    assert [score(math, r"5 \text{ cm}", answer) for answer in ("5 m", "0.05 m", "5", "5 kg")] == [0.0, 1.0, 1.0, 0.0]
    math.close()


@pytest.mark.parametrize(
    ("reference", "text", "expected"),
    [
        ("2, 3", r"$x = \boxed{2}$ or $x = \boxed{3}$", 1.0),
        ("x = 1, y = 2", r"$x = \boxed{1}, y = \boxed{2}$", 1.0),
        ("x = 1, y = 2", r"$y = \boxed{1}, x = \boxed{2}$", 0.0),
        ("3", r"\boxed{2}. Wait, it is \boxed{3}", 1.0),
        ("3", r"\boxed{3}. Wait, it is \boxed{2}", 0.0),
        ("2", r"\boxed{1} \boxed{2}", 0.0),  # no hedging
        (r"\boxed{2} and \boxed{3}", r"\boxed{3, 2}", 1.0),
        (r"\boxed{2} and \boxed{3}", r"\boxed{3}", 0.0),
    ],
)
def test_boxes_that_stand_together_are_one_answer(math: Math, reference: str, text: str, expected: float):
    assert judge(math, reference, text).score == expected


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
