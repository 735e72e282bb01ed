"""Bounds on answers that cost sympy seconds or gigabytes."""

import pytest

from rlframe.answers.bounds import too_big


@pytest.mark.parametrize(
    "answer",
    [
        "2^{1000000}",
        "2**-(1000000)",
        "10^{10^{10}}",
        "9^9^9",
        "x^{9^{9^9}}",
        "(x + 1)^{100000}",
        "(10^9)!",
        "1000000000!",
        "{10^{9}}!",
        r"\binom{10^9}{5*10^8}",
        r"\sum_{k=1}^{10000000} k",
        r"\prod_{k=1}^{10^8} k",
        "(" * 900 + "1" + ")" * 900,
        "{[" * 900,
        "2^{" + "9" * 5000 + "}",
        "1E999999999",
        "2.5e+1000000",
    ],
    ids=lambda answer: answer[:24],
)
def test_answers_that_sympy_never_finishes_are_too_big(answer: str):
    assert too_big(answer) is not None


@pytest.mark.parametrize(
    "answer",
    [
        "2^{2005}",
        "2^{200000}",
        "(x + 1)^{2024}",
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
