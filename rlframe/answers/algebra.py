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

DIGITS = 30  # of constants that are compared as decimals, behind the point
MAX_DIGITS = 3000  # in front of the point; larger constants are compared as formulas
CLOSE = 1e-25  # difference of exact constants that are equal; below 1, relative
ROUNDED = 1e-10  # relative difference, where a constant has a decimal in it
POINTS = ["2 3 5 7 11 13", "-2 -3 5 -7 11 13", "7 1/2 3 1/5 2 5", "-5/7 -2/5 -3 -2 -5 -1/9"]  # values of variables


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
        return constants[0] == constants[1] or bool(
            abs(constants[0] - constants[1]) <= CLOSE * min(1, max(abs(constants[0]), abs(constants[1])))
        )
    # The reference comes first: math-verify treats the sides differently.
    equal = bool(verify(first, second, timeout_seconds=None, raise_on_error=True))
    if not equal and constants is not None:  # a decimal in an exponent
        return bool(abs(constants[0] - constants[1]) <= max(abs(constants[0]), abs(constants[1])) * ROUNDED)
    return equal or same_roots(first, second)


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
    from sympy import Expr, Float, log

    if not (isinstance(first, Expr) and isinstance(second, Expr)) or first.free_symbols or second.free_symbols:
        return None
    exact = not (first.has(Float) or second.has(Float))
    x, y = first.doit(), second.doit()
    if exact and x.is_Rational and y.is_Rational:
        return x, y, True
    if not (x.is_finite and y.is_finite):
        return None
    size = max(sizes) if (sizes := [int(log(abs(side), 10).evalf(5)) for side in (x, y) if side != 0]) else 0
    if size > MAX_DIGITS:
        return None
    x, y = (side.evalf(DIGITS + max(0, size)) for side in (x, y))
    if not (x.is_number and y.is_number and x.is_finite and y.is_finite):
        return None
    return x, y, exact


def same_roots(first: Any, second: Any) -> bool:
    r"""True for formulas with roots that are equal wherever both are real: \sqrt{m/k} and 1/\sqrt{k/m}.

    math-verify compares complex functions, in which these differ.
    """
    from sympy import Expr, Pow, Rational

    if not (isinstance(first, Expr) and isinstance(second, Expr)) or first.free_symbols != second.free_symbols:
        return False
    roots = [
        power for power in (first.atoms(Pow) | second.atoms(Pow)) if isinstance(power.exp, Rational) and power.exp.q > 1
    ]
    symbols = sorted(first.free_symbols, key=str)
    if not roots or not 0 < len(symbols) <= len(POINTS[0].split()):
        return False
    seen = 0
    for point in POINTS:
        at: dict[Any, Any] = dict(zip(symbols, map(Rational, point.split()), strict=False))
        bases = [power.base.evalf(DIGITS, subs=at) for power in roots]
        if not all(base.is_real and base >= 0 for base in bases):
            continue
        x, y = first.evalf(DIGITS, subs=at), second.evalf(DIGITS, subs=at)
        if not (x.is_finite and y.is_finite and abs(x - y) <= CLOSE * max(1, abs(x))):
            return False
        seen += 1
    return seen > 1


def with_imaginary_unit(expression: Any) -> Any:
    """math-verify reads i as a variable that is not real."""
    from sympy import Expr, I, Symbol

    return expression.subs(Symbol("i", real=False), I) if isinstance(expression, Expr) else expression


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
        return with_imaginary_unit(results[0]) if results else None

    return parse_formula, verify
