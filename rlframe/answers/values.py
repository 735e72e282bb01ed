"""Kinds of answers: what a plain text stands for, as a tree. Comparison goes by kind, before any algebra."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, TypeAlias

from rlframe.answers.moments import Moment


@dataclass(frozen=True, slots=True)
class Words:
    """Words in lower case, without articles and punctuation: a name, a day's colour, "yes"."""

    text: str


@dataclass(frozen=True, slots=True)
class Number:
    """A rational number, True for a percent sign behind it, and its spelling, which equality of objects ignores."""

    value: Fraction
    percent: bool = False
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Expression:
    """Plain LaTeX that only algebra can compare."""

    text: str
    percent: bool = False


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number or expression with a unit. `glued`: the unit is a letter without a space before it, as in 5m."""

    body: Value
    unit: str
    glued: bool = False


@dataclass(frozen=True, slots=True)
class Based:
    """Digits in a base: 101_2."""

    digits: str
    base: int


@dataclass(frozen=True, slots=True)
class Moments:
    """The readings of a date or a time of day; `text` tells 3:45 from a ratio."""

    readings: tuple[Moment, ...]
    ratio: Ratio | None = None


@dataclass(frozen=True, slots=True)
class Ratio:
    """2 : 3 : 5."""

    parts: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """An option with its content: "B. 12"."""

    letter: str
    content: Value


@dataclass(frozen=True, slots=True)
class Collection:
    """Several values: a list "1, 2", whose order counts only beside a tuple; a set {1, 2}; a tuple (1, 2)."""

    kind: Literal["list", "set", "tuple"]
    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """The numbers between two ends. `name`: the variable of an inequality."""

    low: Value
    high: Value
    low_closed: bool
    high_closed: bool
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Union:
    """A union of intervals and sets."""

    items: tuple[Value, ...]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of values."""

    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True, slots=True)
class Equation:
    r"""name = value, where the name is a variable, a function's value or any other left side. `text`: the whole.

    2 + 3 = 5 \approx 5.0 has no name, the value 5, the constant 2 + 3, and 5.0 as rounded value.
    """

    name: str
    value: Value
    text: str
    constants: tuple[Value, ...] = ()
    rounded: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Either:
    """A text with several readings: 3,14 is a decimal or two numbers."""

    readings: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A text that no reader would take for an answer, and why."""

    why: str


Value: TypeAlias = (
    Words | Number | Expression | Quantity | Based | Moments | Ratio | Choice | Collection | Interval | Union | Matrix
    | Equation | Either | Unreadable
)  # fmt: skip
Read: TypeAlias = Callable[[str], Value]  # reads a part of a text
INFINITY, MINUS_INFINITY = Expression(r"\infty"), Expression(r"-\infty")
