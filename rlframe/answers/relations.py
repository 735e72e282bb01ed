r"""Relations: equations give a name its value, inequalities in a variable describe an interval."""

from __future__ import annotations

import re

from rlframe.answers.brackets import pieces
from rlframe.answers.latex import latex
from rlframe.answers.names import is_constant, is_label, is_name
from rlframe.answers.values import (
    INFINITY,
    MINUS_INFINITY,
    Collection,
    Equation,
    Expression,
    Interval,
    Number,
    Quantity,
    Read,
    Union,
    Value,
)  # fmt: skip
from rlframe.answers.words import is_words

RELATIONS = {"=", "<", ">", r"\le", r"\ge", r"\ne", r"\approx", r"\in", r"\simeq", r"\sim"}
LESS, GREATER = {"<", r"\le"}, {">", r"\ge"}


def read_relation(text: str, read: Read) -> Value | None:
    """The value of a text with relation signs outside of brackets, or None without them."""
    texts, signs = pieces(text, lambda token: token in RELATIONS)
    if not signs or not any(part.strip() for part in texts):
        return None
    texts = [part.strip() for part in texts]
    if r"\in" in signs:
        return read(texts[-1]) if signs[-1] == r"\in" and texts[-1] else None
    if all(sign in LESS | GREATER for sign in signs):
        return inequality(texts, signs, read) or Expression(ascending(texts, signs) or text)
    if signs == [r"\ne"]:
        return exclusion(texts, read) or Expression(text)
    if all(sign in ("=", r"\approx", r"\simeq", r"\sim") for sign in signs):
        return equation(texts, signs, text, read)
    return Expression(text)


def ascending(texts: list[str], signs: list[str]) -> str | None:
    """c < a < b for b > a > c; None for a chain in one direction that ascends already, or in both."""
    if not all(sign in GREATER for sign in signs):
        return None
    parts = [texts[-1]]
    for text, sign in zip(texts[-2::-1], signs[::-1], strict=True):
        parts += ["<" if sign == ">" else r"\le", text]
    return " ".join(parts)


def inequality(texts: list[str], signs: list[str], read: Read) -> Value | None:
    r"""The interval of x < 3, 3 > x or 1 < x \le 3; None if the other sides have variables."""
    if not all(texts) or not (all(sign in LESS for sign in signs) or all(sign in GREATER for sign in signs)):
        return None
    if signs[0] in GREATER:
        texts, signs = texts[::-1], [sign for sign in signs[::-1]]
    closed = [sign in (r"\le", r"\ge") for sign in signs]
    if len(texts) == 3 and is_name(texts[1]):
        if is_constant(texts[0]) and is_constant(texts[2]):
            return bounded(texts[1], read(texts[0]), read(texts[2]), closed[0], closed[1])
        return None
    if len(texts) != 2:
        return None
    if is_name(texts[0]) and is_constant(texts[1]):
        return bounded(texts[0], MINUS_INFINITY, read(texts[1]), False, closed[0])
    if is_name(texts[1]) and is_constant(texts[0]):
        return bounded(texts[1], read(texts[0]), INFINITY, closed[0], False)
    return None


def bounded(name: str, low: Value, high: Value, low_closed: bool, high_closed: bool) -> Value | None:
    ends = [end.body if isinstance(end, Quantity) else end for end in (low, high)]
    if not all(isinstance(end, Number | Expression) for end in ends):
        return None
    if re.fullmatch(r"\|[^|]*\|", name):
        return magnitudes(name.strip("| "), low, high, low_closed, high_closed)
    return Interval(low, high, low_closed, high_closed, name)


def magnitudes(name: str, low: Value, high: Value, low_closed: bool, high_closed: bool) -> Value:
    """|x| < 3 is -3 < x < 3; |x| > 1 is x < -1 or x > 1."""
    if low == MINUS_INFINITY:
        return Interval(opposite(high), high, high_closed, high_closed, name)
    sides = (
        Interval(opposite(high), opposite(low), high_closed, low_closed),
        Interval(low, high, low_closed, high_closed),
    )
    return Union(sides, name)


def opposite(end: Value) -> Value:
    if end == INFINITY:
        return MINUS_INFINITY
    return Number(-end.value) if isinstance(end, Number) else Expression(f"-({latex(end)})")


def exclusion(texts: list[str], read: Read) -> Value | None:
    r"""x \ne 5: all numbers but 5."""
    name, other = texts
    if not (is_name(name) and other and is_constant(other)):
        return None
    point = read(other)
    if not isinstance(point, Number | Expression):
        return None
    sides = (Interval(MINUS_INFINITY, point, False, False), Interval(point, INFINITY, False, False))
    return Union(sides, name)


def equation(texts: list[str], signs: list[str], text: str, read: Read) -> Value | None:
    """name = value, of a chain the last value. An approximation behind it is a rounded value."""
    count = next((index for index, sign in enumerate(signs) if sign != "="), len(signs)) + 1
    exact, rounded = [part for part in texts[:count] if part], [part for part in texts[count:] if part]
    if not exact:
        return None
    if is_name(exact[-1]) and len(exact) == 2:
        exact.reverse()  # 5 = x, 2x + 1 = y
    if len(exact) == 1:
        if rounded and (is_name(exact[0]) or is_words(exact[0])):
            return Equation(exact[0], read(rounded[-1]), text)
        return Equation("", read(exact[0]), text, rounded=tuple(read(part) for part in rounded))
    constants = [part for part in exact[:-1] if is_constant(part) and not is_words(part)]
    name = "" if exact[0] in constants or is_words(exact[0]) else exact[0]
    value = read(exact[-1])
    if r"\pm" in exact[-1] and isinstance(value, Collection) and value.kind == "set" and is_label(name):
        return Collection("set", tuple(Equation(name, item, f"{name} = {latex(item)}") for item in value.items))
    return Equation(
        name,
        value,
        text,
        constants=tuple(read(part) for part in constants),
        rounded=tuple(read(part) for part in rounded),
    )
