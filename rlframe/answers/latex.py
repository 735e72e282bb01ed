r"""LaTeX of values, for math-verify."""

from __future__ import annotations

import re

from rlframe.answers.names import is_label
from rlframe.answers.values import (
    INFINITY,
    MINUS_INFINITY,
    Choice,
    Collection,
    Either,
    Equation,
    Expression,
    Interval,
    Matrix,
    Number,
    Quantity,
    Ratio,
    Union,
    Value,
    Words,
)  # fmt: skip

SINGLE_LETTER = re.compile(r"\\text ?\{ ?([A-Za-z]) ?\}")
SUBSCRIPTED_E = re.compile(r"(?<![A-Za-z\\])E_")
IMAGINARY = re.compile(r"(?<![A-Za-z\\{])i(?![A-Za-z_}])")
BARE_LETTER = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
CAPITAL = re.compile(r"\\(?:text|begin|end|mathbb|operatorname)\{[^{}]*\}|\\[A-Za-z]+|([A-Z])(_\{)?")
PRIMED = re.compile(r"([A-Za-z])('+)")


def latex(value: Value) -> str | None:
    """LaTeX of a value that algebra can compare; None for a value that it cannot, such as words or a date."""
    match value:
        case Number():
            return percent(number_text(value), value.percent)
        case Expression():
            return percent(expression_text(value.text), value.percent)
        case Quantity():
            return latex(value.body)
        case Equation():
            return expression_text(value.text)
        case Ratio() if len(value.parts) == 2:
            over, under = latex(value.parts[0]), latex(value.parts[1])
            return None if over is None or under is None else rf"\frac{{{over}}}{{{under}}}"
        case Interval():
            low, high = latex(value.low), latex(value.high)
            return None if low is None or high is None else (
                f"{'[' if value.low_closed else '('}{low},{high}{']' if value.high_closed else ')'}")  # fmt: skip
        case Union():
            return joined(value.items, r" \cup ", "", "")
        case Collection():
            return joined(value.items, ",", *(("(", ")") if value.kind == "tuple" else (r"\{", r"\}")))
        case Matrix():
            rows = [joined(row, "&", "", "") for row in value.rows]
            if any(row is None for row in rows):
                return None
            return r"\begin{pmatrix}" + r"\\".join(str(row) for row in rows) + r"\end{pmatrix}"
        case Either():
            return latex(value.readings[0])
        case Words() if len(value.text) == 1:
            return value.text
        case _:
            return None


def inequality(interval: Interval) -> str | None:
    r"""An interval with a name as LaTeX of an inequality: 1 < x \le 2."""
    low, high = latex(interval.low), latex(interval.high)
    if low is None or high is None or interval.name is None:
        return None
    first, second = ("\\le" if closed else "<" for closed in (interval.low_closed, interval.high_closed))
    left = "" if interval.low == MINUS_INFINITY else f"{low} {first} "
    right = "" if interval.high == INFINITY else f" {second} {high}"
    return f"{left}{interval.name}{right}"


def joined(values: tuple[Value, ...], separator: str, opening: str, closing: str) -> str | None:
    texts = [latex(value) for value in values]
    return None if None in texts else opening + separator.join(str(text) for text in texts) + closing


def percent(text: str, is_percent: bool) -> str:
    return rf"\frac{{{text}}}{{100}}" if is_percent else text


def number_text(number: Number) -> str:
    """A decimal stays a decimal, so that math-verify rounds as many digits as both sides have."""
    if re.fullmatch(r"[+-]?[0-9]*\.[0-9]+", number.text):
        return number.text
    over, under = number.value.numerator, number.value.denominator
    return str(over) if under == 1 else rf"{'-' if over < 0 else ''}\frac{{{abs(over)}}}{{{under}}}"


def expression_text(text: str) -> str:
    """Letters with primes become variables of their own, since math-verify drops primes; so does E_1, which it takes
    for Euler's number."""
    text = IMAGINARY.sub(" i ", text)  # apart from digits, math-verify sees that the formula is complex
    text = SUBSCRIPTED_E.sub("Q_", SINGLE_LETTER.sub(r" \1", text).replace("$", ""))
    return PRIMED.sub(lambda match: f"{match[1]}_{{9{len(match[2])}}}", text)


def apart(first: str, second: str) -> tuple[str, str]:
    """Both texts, with capitals renamed where a letter occurs in two sizes, which math-verify does not tell apart."""
    letters = set(BARE_LETTER.findall(first + " " + second))
    if not any(letter.lower() in letters for letter in letters if letter.isupper()):
        return first, second

    def renamed(text: str) -> str:
        return CAPITAL.sub(lambda match: f"{match[1]}_{{8{'' if match[2] else '}'}" if match[1] else match[0], text)

    return renamed(first), renamed(second)


def formulas(value: Value) -> list[str]:
    """LaTeX of the parts of a value that only algebra can read."""
    match value:
        case Expression():
            return [] if value in (INFINITY, MINUS_INFINITY) else [expression_text(value.text)]
        case Quantity():
            return formulas(value.body)
        case Equation():
            return formulas(value.value) if is_label(value.name) else [expression_text(value.text)]
        case Interval():
            parts = (value.low, value.high)
        case Collection() | Union():
            parts = value.items
        case Ratio():
            parts = value.parts
        case Matrix():
            parts = tuple(cell for row in value.rows for cell in row)
        case Choice():
            parts = (value.content,)
        case Either():
            parts = value.readings
        case _:
            return []
    return [text for part in parts for text in formulas(part)]
