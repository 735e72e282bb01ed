r"""Algebra by math-verify: the functions of this module run in a process that can be killed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from rlframe.answers.comparison import Comparison, Truth, Units
from rlframe.answers.latex import formulas
from rlframe.answers.reading import read
from rlframe.answers.values import Value

DIGITS = 30  # of constants that are compared as decimals
CLOSE = 1e-25  # relative difference of exact constants that are equal
ROUNDED = 1e-10  # the same, where a constant has a decimal in it


class Unread(Exception):
    """A text that math-verify cannot parse."""


def equivalent(reference: str, answer: str | None, units: Units = "ignore") -> str:
    """Runs in the killable process: "equal", "different", "answer unreadable…" or "reference unreadable…".

    Without an answer: "equal" if the reference can be read. sympy's error on a reference alone is the reference's
    fault; on a pair, the answer's. The caller bounds the time.
    """
    expected = read(reference)
    try:
        if answer is None:
            parse_all(expected)
            return "equal"
        same = Comparison(units, by_math_verify).same(expected, read(answer))
        if not same:
            parse_all(expected)
    except Unread as error:
        return f"{error}"
    except Exception as error:
        return f"answer incomparable: {type(error).__name__}: {error}"
    return "equal" if same else "different"


def by_math_verify(reference: str, answer: str, within: Fraction | None = None) -> Truth:
    """An `Algebra`. Raises Unread for a side that math-verify cannot parse."""
    _, verify = math_verify()
    first, second = parsed(reference, "reference"), parsed(answer, "answer")
    if within is not None:
        return is_near(first, second, within)
    constants = numeric(first, second)
    if constants is not None and constants[2]:
        return abs(constants[0] - constants[1]) <= max(abs(constants[0]), abs(constants[1])) * CLOSE
    # The reference comes first: math-verify treats the sides differently.
    equal = bool(verify(first, second, timeout_seconds=None, raise_on_error=True))
    if not equal and constants is not None:  # a decimal in an exponent
        return bool(abs(constants[0] - constants[1]) <= max(abs(constants[0]), abs(constants[1])) * ROUNDED)
    return equal


def parse_all(value: Value) -> None:
    """Raises Unread unless math-verify can parse what it would have to compare."""
    for text in formulas(value):
        expression = parsed(text, "reference")
        try:
            math_verify()[1](expression, expression, timeout_seconds=None, raise_on_error=True)
        except Exception as error:  # 1/0
            raise Unread(f"reference unreadable: {type(error).__name__}: {error}") from error


@functools.lru_cache(maxsize=256)
def parsed(text: str, side: str) -> Any:
    parse, _ = math_verify()
    try:
        expression = parse(text)
    except Exception as error:
        raise Unread(f"{side} unreadable: {type(error).__name__}: {error}") from error
    if expression is None:
        raise Unread(f"{side} unreadable")
    return expression


def is_near(first: Any, second: Any, within: Fraction) -> bool:
    constants = numeric(first, second)
    return constants is not None and bool(abs(constants[0] - constants[1]) <= float(within))


def numeric(first: Any, second: Any) -> tuple[Any, Any, bool] | None:
    """The values of two constants, and True if both are exact; None where a side has variables.

    math-verify takes 2^{-99} and 2^{-98} for equal, and does not simplify every nest of roots.
    """
    from sympy import Expr, Float

    if not (isinstance(first, Expr) and isinstance(second, Expr)) or first.free_symbols or second.free_symbols:
        return None
    x, y = first.doit().evalf(DIGITS), second.doit().evalf(DIGITS)
    if not (x.is_number and y.is_number and x.is_finite and y.is_finite):
        return None
    return x, y, not (first.has(Float) or second.has(Float))


@functools.cache
def math_verify() -> tuple[Callable[[str], Any], Callable[..., bool]]:
    """Two functions: `parse` parses a formula, or returns None; `verify` compares. The import takes a second."""
    import logging

    from math_verify import LatexExtractionConfig, parse, verify
    from math_verify.parser import NormalizationConfig

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # drops its warning that its timeouts are off
    # Units are cut off before; its own list of units has m, g and t, so 3m would be 3.
    normalization = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    config = [LatexExtractionConfig(normalization_config=normalization)]

    def parse_formula(latex: str) -> Any:
        # "first_match": all of the text or nothing, since a fragment of an unreadable answer is not the answer.
        # math-verify's own timeouts use SIGALRM and silently mean "wrong", so they are off.
        results = parse(
            f"${latex}$",
            config,
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=None,  # pyright: ignore[reportArgumentType]
            raise_on_error=True,
        )
        return results[0] if results else None

    return parse_formula, verify
