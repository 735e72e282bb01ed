"""Values that are near each other, letters in two sizes, and units in which the number is another: never the same."""

import pytest

from tests.answers.same import is_right


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("3^{500}", "3^{500} - 1", False),
        ("3^{500}", "9^{250}", True),
        ("10^{40} + 1", "10^{40}", False),
        (r"10^{30}\sqrt{2}", r"10^{30}\sqrt{2} + 1", False),
        (r"10^{30}\sqrt{2}", r"\sqrt{2 \cdot 10^{60}}", True),
        ("e^{7000}", "e^{7000} + 1", False),
        (r"\frac{5}{2}", "2.5000001", False),
        (r"\frac{5}{2}", "2.500", True),
        (r"\frac{2}{7}", "0.285714", True),  # the fraction has no finite decimal
        (r"\frac{2}{7}", "0.28571", False),
        ("2.50", "2.5000001", True),  # the reference is rounded
        ("0.04", "0.04%", False),
        ("0.04", "4%", True),
        ("4", "4%", True),
        ("F = MA", "F = mA", False),
        ("Rr^2", "rR^2", False),
        ("Rr^2", "r^2R", True),
        (r"\pi(R^2 - r^2)", r"\pi(R - r)(R + r)", True),
        (r"\{\emptyset\}", r"\emptyset", False),
        ("60°", "60'", False),
        ("60°", "60 rad", False),
        ("180°", r"\pi \text{ rad}", True),
        (r"\frac{\pi}{4}", r"\frac{\pi}{4}^\circ", False),
        (r"\frac{\pi}{4}", "45°", True),
        ("12° 15'", "12.25°", True),
        ("12° 15'", "27°", False),
        ("$3", "3 cents", False),
        ("£3", "300 cents", True),
        (r"\sqrt{a^2}", "a", False),
        (r"\sqrt{\frac{g}{l}}", r"\frac{1}{\sqrt{l/g}}", True),
        (r"\sqrt{\frac{g}{l}}", r"\sqrt{\frac{l}{g}}", False),
    ],
)
def test_exact_values_are_compared_exactly(reference: str, answer: str, right: bool):
    assert is_right(reference, answer) is right


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("385", r"\sum_{k=1}^{10} k^2", False),
        ("385", r"\sum_{k=1}^{10} k^2 = 385", True),
        (r"\sum_{k=1}^{n} k^2", r"\sum_{j=1}^{n} j^2", True),
        ("6", r"\gcd(12, 18)", False),
        ("3x^2", r"\frac{d}{dx} x^3", False),
        ("1", r"\lim_{x \to 0} \frac{\sin x}{x}", False),
        ("(a, b) = (3, 1)", "a + b = 4, a - b = 2", False),
        (r"\frac{dy}{dx} = 2x", r"\frac{dy}{dx} = 2x", True),
    ],
)
def test_an_answer_leaves_no_work_to_do(reference: str, answer: str, right: bool):
    assert is_right(reference, answer) is right
