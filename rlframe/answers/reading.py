r"""Reads an answer or a reference as a value. Formulas stay text for algebra; the structure around them is read."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from rlframe.answers.brackets import TEXT, nesting
from rlframe.answers.relations import read_relation
from rlframe.answers.scalars import read_choice, read_moment, read_number, read_sentence, read_words
from rlframe.answers.spelling import plain
from rlframe.answers.structures import (
    read_based,
    read_bracketed,
    read_cases,
    read_figure,
    read_list,
    read_matrix,
    read_pair_of_signs,
    read_point,
    read_ratio,
    read_union,
    read_vector,
    read_wrapped,
)  # fmt: skip
from rlframe.answers.units import split_unit
from rlframe.answers.values import Expression, Number, Quantity, Unreadable, Value, Words

# Spellings of numbers that are read without the table: most answers in training.
SIMPLE = re.compile(
    r"(?P<money>\\?\$)?(?P<number>[+-]?(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]{1,100})(?:\.[0-9]{1,100})?)"
    r"(?P<unit> dollars| [a-z]{3,12}|\\text\{ ?[a-z ]{3,20}\})?"
)
UNREAD_COMMAND = re.compile(r"\\(?:textcircled|pmod|equiv|cap|mho)(?![A-Za-z])")
SPACED_NUMBERS = re.compile(r"[0-9] +[0-9]")
TWICE = re.compile(r"([^:]*(?:[<>]|\\le|\\ge)[^:]*):\s*[(\[\\].*[)\]}]")  # x < 2 : (-\infty, 2)
PERCENT = re.compile(r"\s*%$")
MAX_DEPTH = 20  # of brackets; a deeper text is left to algebra as a whole
MAX_PARTS = 1000  # of a text that are read; the others are left to algebra

# The first reader that returns a value decides.
READERS = [
    read_vector, read_moment, read_number, read_choice, read_words, read_matrix, read_wrapped, read_sentence, read_list,
    read_relation, read_based, read_bracketed, read_union, read_ratio, read_point, read_cases,
    read_figure, read_pair_of_signs,
]  # fmt: skip


def read(text: str) -> Value:
    r"""The value of an answer or a reference, in any spelling.

    >>> read(r"$\frac{1}{2}$"), read("(1, 2)").kind, read("x \\le 3").high
    (Number(value=Fraction(1, 2), percent=False), 'tuple', Number(value=Fraction(3, 1), percent=False))
    """
    if text.startswith("$") and text.endswith("$") and text.count("$") == 2:
        text = text[1:-1]
    match = SIMPLE.fullmatch(text)
    if match is None or (match["money"] and match["unit"]):
        return read_cached(text)
    digits = match["number"].replace(",", "")
    number = Number(Fraction(digits) if "." in digits else Fraction(int(digits)), text=digits)
    if match["money"]:
        return Quantity(number, "dollars")
    if match["unit"]:
        _, unit, glued = split_unit(text)
        return Quantity(number, unit, glued) if unit is not None else read_cached(text)
    return number


@lru_cache(maxsize=1024)
def read_cached(text: str) -> Value:
    latex = plain(text)
    return Expression(latex) if nesting(latex) > MAX_DEPTH else read_plain(latex, [MAX_PARTS])


def read_plain(text: str, parts_left: list[int], depth: int = 0) -> Value:
    """The value of a plain text or of a part of it, `depth` levels inside. `parts_left` bounds the work."""

    def read_part(part: str) -> Value:
        return read_plain(part, parts_left, depth + 1)

    text = text.strip().rstrip(",;").strip()
    if match := TWICE.fullmatch(text):
        text = match[1].strip()
    if not text:
        return Unreadable("empty")
    parts_left[0] -= 1
    if depth > MAX_DEPTH or parts_left[0] < 0:
        return Expression(text)
    for reader in READERS:
        value = reader(text, read_part)
        if value is not None:
            return value
    body, unit, glued = split_unit(text)
    if unit is not None and body:
        return Quantity(read_part(body), unit, glued)
    return read_expression(text)


def read_expression(text: str) -> Value:
    body = PERCENT.sub("", text)
    # "1 2" is no product, and math-verify reads no congruences: such texts equal themselves only.
    if UNREAD_COMMAND.search(body) or SPACED_NUMBERS.search(TEXT.sub("", body)):
        return Words(text.replace(" ", "") if "\\" in text else text)
    return Expression(body, percent=body != text)
