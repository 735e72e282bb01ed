r"""Readers of single values: numbers with units, options, words, sentences with one number, dates and times."""

from __future__ import annotations

import re

from rlframe.answers.brackets import TEXT, inside
from rlframe.answers.moments import moments
from rlframe.answers.numerals import DECIMAL_COMMA, INDIAN, in_words, numeral, ungrouped
from rlframe.answers.units import angle, compound, split_unit
from rlframe.answers.values import (
    Choice,
    Collection,
    Either,
    Moments,
    Number,
    Quantity,
    Ratio,
    Read,
    Value,
    Words,
)
from rlframe.answers.words import HEDGES, NEGATIONS, is_words, lone_value, sentence_value, spelled_words

CHOICE = re.compile(
    r"(?:(?:option|choice|answer) )?(?:\\text ?\{ ?)?\(?(?P<letter>[A-J])"
    r"(?:(?P<mark>[.):])|(?P<end> ?\}[.):]?)) ?(?:\} ?)?(?P<content>[^\s].*)?"
)
OPTION = re.compile(
    r"(?:\\text\{ ?)?(?:the )?(?:correct |right |best )?(?:option|choice|answer) (?:is )?(?:\\text\{ ?)?"
    r"\(?([A-J])\)?\.?(?: ?\})*",
    re.IGNORECASE,
)
NO_CONTENT = re.compile(
    r"[-+=<>^_/*:,;]|\\(?:cup|cap|cdot|times|in|le|ge|ne|to|mid|setminus)(?![A-Za-z])|(?:or|and|not)\b"
)
MOMENT = re.compile(r"[A-Za-z]{3}|年|:|[0-9] ?[ap]\.?m|[0-9][-/.][0-9]+[-/.]", re.IGNORECASE)
PERCENT = re.compile(r"\s*%$")
VERDICT = re.compile(  # and a reason
    r"(yes|no|true|false)(?: ?[,;:–(]|\. | -|,? (?:because|since|as)\b)", re.IGNORECASE
)
OPPOSITES = {
    word: re.compile(rf"\b(?:{other}|but|unless|or|not sure|maybe)\b", re.IGNORECASE)
    for pair in (("yes", "no"), ("true", "false"))
    for word, other in (pair, pair[::-1])
}
MIXED = re.compile(r"([0-9]{1,9}) and ([0-9]{1,9} ?/ ?[0-9]{1,9}|\\frac\{[0-9]{1,9}\}\{[0-9]{1,9}\})")
MAX_NAMES = 20  # of a list of words


def read_number(text: str, read: Read) -> Value | None:
    """A number in digits or words, with or without a percent sign or a unit."""
    body = PERCENT.sub("", text)
    if body.startswith("(") and "," not in body:
        body = (inside(body, "(", ")") or body).strip()
    value = numeral(body)
    if value is not None:
        return Number(value, text.endswith("%"), ungrouped(body))
    if DECIMAL_COMMA.fullmatch(body):
        return number_or_list(body, body.replace(",", "."), text.endswith("%"), read)
    if match := MIXED.fullmatch(text):  # five and a quarter, or 5 and 1/4
        value = numeral(f"{match[1]} {match[2]}")
        items = Collection("list", (read(match[1]), read(match[2])))
        return items if value is None else Either((Number(value), items))
    if INDIAN.fullmatch(body):
        return number_or_list(body, body.replace(",", ""), False, read)
    number, unit, glued = split_unit(text)
    if unit is not None:
        digits = PERCENT.sub("", number)
        digits = digits.replace(",", ".") if DECIMAL_COMMA.fullmatch(digits) else digits
        value = numeral(digits)
        if value is not None:
            return Quantity(Number(value, number.endswith("%"), ungrouped(digits)), unit, glued)
    if (degrees := angle(text)) is not None:
        return Quantity(Number(degrees, text="."), "°")
    sum_of_units = compound(text)
    return None if sum_of_units is None else Quantity(Number(sum_of_units[0]), sum_of_units[1])


def number_or_list(text: str, digits: str, percent: bool, read: Read) -> Value | None:
    """3,14 is a decimal, or two numbers."""
    value = numeral(digits)
    items = tuple(read(item) for item in text.split(","))
    return None if value is None else Either((Number(value, percent, digits), Collection("list", items)))


def read_choice(text: str, read: Read) -> Value | None:
    if match := OPTION.fullmatch(text):
        return Words(match[1].lower())
    match = CHOICE.fullmatch(text)
    if match is None:
        return None
    opened = text.removeprefix(r"\text").lstrip("{ ").startswith("(")
    content = match["content"]
    if content is None:
        return Words(match["letter"].lower()) if (opened or match["mark"] or match["end"]) else None
    content = content.strip()
    if NO_CONTENT.match(content) or (match["end"] and not opened and not match["end"].strip(" }")):
        return None
    if match["mark"] == ")" and opened and "\\text" not in text and not re.match(r"\(?[A-J]\)? ", text):
        return None  # (B)(x + 1) is a product
    return Choice(match["letter"].lower(), read(content))


def read_words(text: str, read: Read) -> Value | None:
    if (value := lone_value(text)) is not None:
        return read(value)
    if (verdict := VERDICT.match(text)) and not OPPOSITES[verdict[1].lower()].search(text):
        return Words(verdict[1].lower())
    if not is_words(text):
        return None
    if (value := in_words(TEXT.sub(r"\1", text).strip(" ."))) is not None:
        return Number(value)
    if (counted := read_counted(text)) is not None:
        return counted
    items = [item for item in re.split(r",\s*(?:and\s+)?|\s+and\s+", TEXT.sub(r"\1", text).strip(" .")) if item.strip()]
    words = spelled_words(text)
    are_names = all(len(item.split()) <= 3 for item in items) and words not in ("yes", "no", "true", "false")
    if 1 < len(items) <= MAX_NAMES and are_names:
        return Collection("list", tuple(read(item) for item in items))
    return Words(words)


def read_counted(text: str) -> Value | None:
    """A number in words before a noun: "five centimeters"; or at the end of a sentence: "The number is five"."""
    head, _, tail = re.sub(r"\b(?:are|equals)\b", "is", text.rstrip(".")).rpartition(" is ")
    tail = re.sub(r" (?:of (?:them|these)|in (?:all|total)|altogether)$", "", tail)
    if head and not NEGATIONS.search(head) and (value := in_words(tail)) is not None:
        return Number(value)
    words = text.split()
    for count in range(min(3, len(words) - 1), 0, -1):
        value = in_words(" ".join(words[:-count]))
        if value is not None and not HEDGES.search(" ".join(words[-count:])):
            return Quantity(Number(value), " ".join(words[-count:]))
    return None


def read_sentence(text: str, read: Read) -> Value | None:
    sentence = sentence_value(text)
    return read(sentence) if sentence is not None and sentence != text else None


def read_moment(text: str, read: Read) -> Value | None:
    readings = moments(text) if MOMENT.search(text) else []
    if not readings:
        return None
    parts = text.split(":")
    is_ratio = len(parts) > 1 and all(part.strip().isdigit() for part in parts)
    ratio = Ratio(tuple(read(part) for part in parts)) if is_ratio else None
    return Moments(tuple(readings), ratio)
