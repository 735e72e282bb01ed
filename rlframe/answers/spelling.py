r"""Plain spelling: the many ways in which people and models write an answer become plain LaTeX."""

from __future__ import annotations

import re

from rlframe.answers.brackets import braced
from rlframe.answers.characters import ascii_only
from rlframe.answers.table import CODE, INTERVALS, LATEX, PHRASES, SPACES, UNICODE, WORDS, Row

MULTILINE = re.compile(r"\\begin|\\end")
DOUBLED = re.compile(r"\\\\(?=[A-Za-z{}()\[\]])")  # an escape too many, from JSON: \\frac
PYTHON = [("abs", "|", "|"), ("floor", r"\lfloor ", r"\rfloor "), ("ceil", r"\lceil ", r"\rceil ")]
PHRASE = re.compile(r"\\therefore|(?<![\\A-Za-z])[A-Za-z]{2}|[`\"*_!.,;]|^[\s=~]|\\approx|\\sim|^\$?[A-Za-z]\$?\s+is\b")
WORDY = re.compile(
    r"(?<![\\A-Za-z])[A-Za-z]{2}|[a-e]\)|_|0[box]|\||^\{|\)\^|\([a-z]|%|\\text|\\[pb]?mod|\\Omega|\\in|\]\^|\\mathbb"
)
LETTERS = re.compile(r"[A-Za-z*^=_!<>+]")


def plain(text: str) -> str:
    r"""Plain LaTeX of an answer, without delimiters, phrases around it, styles and spaces.

    >>> plain("**Answer:** $x² + ½$."), plain("sqrt(2)*pi")
    ('x^{2} + \\frac{1}{2}', '\\sqrt{2} \\cdot\\pi')
    """
    if not text.isascii():
        text = substitute(UNICODE, ascii_only(text))
    text = text.strip()
    if PHRASE.search(text) or not text.isascii():
        text = substitute(PHRASES, text)
    text = without_dollars(text)
    if any(sign in text for sign in "\\{~_"):
        if "\\\\" in text and not MULTILINE.search(text):
            text = DOUBLED.sub(r"\\", text)
        text = substitute(LATEX, text)
    if LETTERS.search(text):
        text = substitute(CODE, text)
        for command in (r"\sqrt", r"\sqrt[3]", "^"):
            text = braced(text, command)
        for command, opening, closing in PYTHON:
            text = braced(text, command, opening, closing).replace(command + opening, opening)
    if "[" in text or "]" in text:
        text = substitute(INTERVALS, text)
    if WORDY.search(text):
        text = substitute(WORDS, text)
    text = substitute(SPACES, text).strip()
    return PERIOD.sub(any_integer, text) if "\\in" in text or "integer" in text else text


PERIOD = re.compile(
    r"^(?P<body>.*[^\s,;({])(?: ?[,;(]| ?\\text ?\{ ?,?| ) ?(?:(?:for (?:any|all|every|some)|where|with) )?"
    r"(?:integers? ?\}? ?(?P<last>[a-z])|(?P<name>[a-z]) ?\\in ?(?:\\mathbb|\\text)?\{Z\}"
    r"|(?P<is>[a-z]) is an(?:y)? integer)\)?$"
)


def any_integer(match: re.Match[str]) -> str:
    r"""A general solution with n for its integer: the letter does not count.

    >>> plain(r"x = 2k\pi, k \in \mathbb{Z}"), plain(r"2\pi m \text{ for any integer } m")
    ('x = 2n\\pi', '2\\pi n')
    """
    letter = match["last"] or match["name"] or match["is"]
    is_taken = letter != "n" and re.search(r"(?<![A-Za-z\\])n(?![A-Za-z])", match["body"])
    return match[0] if is_taken else re.sub(rf"(?<![A-Za-z\\]){letter}(?![A-Za-z])", "n", match["body"])


def substitute(rows: list[Row], text: str) -> str:
    for pattern, replacement, _, _, literal in rows:
        if literal in text:
            text = pattern.sub(replacement, text)
    return text


CURRENCIES = {"$": "dollars", "€": "euros", "£": "pounds sterling", "¥": "yen", "₹": "rupees", "R": "rupees",
              "¢": "cents", "USD": "dollars", "EUR": "euros", "GBP": "pounds sterling"}  # fmt: skip
SIGNS = [*CURRENCIES]
LONE_PRICE = re.compile(r"(?<!\\)\$\s*[-.]?[0-9]|[0-9]\s*\$")
PRICE = re.compile(
    r"(?P<sign>[-+]?\s*)(?P<money>\\\$|[€£¥₹]|(?<![A-Z])(?:US|A|C)\\?\$|(?:USD|EUR|GBP)(?= ?[0-9])|Rs\.? *)\s*"
    r"(?P<amount>-?(?:\.[0-9]+|[0-9][0-9,.{}\\! ]*[0-9]|[0-9]))"
    r"|(?P<before>[0-9])\s*(?P<behind>\\\$|[€£¥₹¢])(?![0-9])"
)


def without_dollars(text: str) -> str:
    r"""Without dollar signs around formulas; a price gets its currency as a unit behind it.

    >>> without_dollars(r"$5 or 6$"), without_dollars(r"\$5")
    ('5 or 6', '5\\text{ dollars}')
    """
    if not any(sign in text for sign in SIGNS):
        return text
    text = text.replace(r"\text{\$}", r"\$").replace(r"\text{$}", r"\$")
    if len(re.findall(r"(?<!\\)\$", text)) == 1 and LONE_PRICE.search(text):
        text = re.sub(r"(?<!\\)\$", r"\\$", text)
    text = re.sub(r"(?<!\\)\$\$?", " ", text)
    return PRICE.sub(priced, text).strip()


def priced(match: re.Match[str]) -> str:
    money = match["money"] or match["behind"]
    unit = next(unit for sign, unit in CURRENCIES.items() if sign in money)
    return f"{match['sign'] or ''}{match['amount'] or match['before']}\\text{{ {unit}}}"
