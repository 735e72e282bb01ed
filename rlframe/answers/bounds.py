"""Bounds on texts that cost sympy seconds or gigabytes; no honest answer exceeds the bounds."""

from __future__ import annotations

import re
from math import inf, log10

from rlframe.answers.brackets import nesting

MAX_NESTING = 40
MAX_EXPONENT = 6  # log10: exponents below a million
MAX_SYMBOLIC_EXPONENT = 5  # the same, of a variable or bracket, which sympy multiplies out
MAX_OPERAND = 5  # log10 of an operand of a factorial, binomial, sum or product
POWER_SIGN = r"\s*(?:\^|\*\*)[\s{(+-]*"
OPERAND = rf"(?<![0-9])([0-9]++)(?:{POWER_SIGN}([0-9]++))?"  # possessive: no retries inside a run of digits
EXPONENT = re.compile(POWER_SIGN + OPERAND)
SYMBOLIC_EXPONENT = re.compile(r"[a-df-zA-Z)]" + POWER_SIGN + OPERAND)
SCIENTIFIC = re.compile(r"[0-9.][eE][+-]?([0-9]++)()")
FACTORIAL = re.compile(OPERAND + r"[\s})]*!")
LONG_LOOP = re.compile(r"\\(?:[dt]?binom|sum|prod)(?![A-Za-z])")


def too_big(answer: str) -> str | None:
    """The reason not to parse an answer, or None.

    >>> too_big("10^{10^{10}}")
    'the answer has an exponent of 10^6 or more'
    """
    if nesting(answer) > MAX_NESTING:
        return f"the answer nests more than {MAX_NESTING} brackets"
    exponents = [*EXPONENT.finditer(answer), *SCIENTIFIC.finditer(answer)]
    if any(magnitude(match[1], match[2]) >= MAX_EXPONENT for match in exponents):
        return f"the answer has an exponent of 10^{MAX_EXPONENT} or more"
    if any(magnitude(match[1], match[2]) >= MAX_SYMBOLIC_EXPONENT for match in SYMBOLIC_EXPONENT.finditer(answer)):
        return f"the answer has a variable or a bracket to the power of 10^{MAX_SYMBOLIC_EXPONENT} or more"
    operands = re.finditer(OPERAND, answer) if LONG_LOOP.search(answer) else FACTORIAL.finditer(answer)
    if any(magnitude(match[1], match[2]) >= MAX_OPERAND for match in operands):
        return f"the answer has a factorial, binomial, sum or product of 10^{MAX_OPERAND} or more"
    return None


def magnitude(base: str, exponent: str | None) -> float:
    """log10 of base^exponent, both given as digits; inf for an exponent of more than 9 digits."""
    log = log10(int(base[:9]) or 1) + max(0, len(base) - 9)
    return log * (1 if not exponent else int(exponent) if len(exponent) <= 9 else inf)
