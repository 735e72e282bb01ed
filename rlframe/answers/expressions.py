r"""The last formula or number of a text without convention: delimited, bare LaTeX such as 3\sqrt{2}, or in prose."""

from __future__ import annotations

import re
from typing import NamedTuple

LAST_CHARS = 4096  # end of the text that is searched; bounds the cost of unclosed delimiters
DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})++|[0-9]++)(?:\.[0-9]++)?"
# Pandoc's rule for $: no white space next to it inside, no digit behind it, so "$5 and then $6" has two prices and no
# formula. White space is allowed around a formula without words.
DELIMITED = re.compile(
    r"\\\((?P<round>.+?)\\\)|\\\[(?P<square>.+?)\\\]|\$\$(?P<display>[^$]+)\$\$|(?<![\\0-9])\$(?P<inline>[^\s$](?:[^$\n]*[^\s$])?)\$(?![0-9])"
    r"|(?<![\\0-9])\$(?P<spaced>[^$\n]{1,400})\$(?![0-9])",
    re.DOTALL,
)
WORD = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{2,}")
TOKEN = re.compile(
    rf"(?P<money>[$€£]{DIGITS})|(?P<number>{DIGITS}(?:[eE][+-]?[0-9]++)?(?![A-Za-z])|\.[0-9]++|{DIGITS}(?=[a-z](?![A-Za-z])))"
    r"|(?P<command>\\(?:[A-Za-z]+|[%,!{}]))|(?P<word>[A-Za-z]{2,}[A-Za-z0-9]*)|(?P<letter>[A-Za-z])|(?P<open>[({\[])|(?P<close>[)}\]])"
    r"|(?P<operator>[-+*/^_=<>!|×·÷−√π%:]|≤|≥)|(?P<space>[ ]+)|(?P<other>.)",
    re.DOTALL,
)
BREAKING_COMMANDS = {r"\text", r"\boxed", r"\begin", r"\end", r"\item", r"\implies", r"\Rightarrow", r"\therefore"}


class Run(NamedTuple):
    """A run of mathematical tokens in prose."""

    start: int
    end: int
    text: str


def last_expression(text: str) -> str | None:
    r"""The last formula or number.

    >>> last_expression(r"so it is \frac{1}{3}."), last_expression("It costs $5 and then $6"), last_expression("x = 5.")
    ('\\frac{1}{3}', '$6', '5')
    """
    tail = text[-LAST_CHARS:]
    formulas = [match for match in DELIMITED.finditer(tail) if is_formula(match)]
    last = formulas[-1] if formulas else None
    if (run := last_run(tail[last.end() :] if last else tail)) is not None:
        return run
    return last[last.lastgroup or 0] if last else None


def is_formula(match: re.Match[str]) -> bool:
    return match.lastgroup != "spaced" or not WORD.search(match["spaced"])


def last_run(text: str) -> str | None:
    """The last run of numbers, commands and operators that holds a number or a command with an argument."""
    runs: list[str] = []
    tokens: list[tuple[str, str]] = []
    depth = 0

    def finish() -> None:
        nonlocal depth
        if run := trimmed(tokens):
            runs.append(run)
        tokens.clear()
        depth = 0

    for match in TOKEN.finditer(text):
        kind, token = match.lastgroup or "other", match[0]
        if kind == "money":
            finish()
            tokens.append((kind, token))
            continue
        if depth == 0 and (kind in ("word", "other") or token in BREAKING_COMMANDS):
            finish()
            continue
        if kind == "letter" and depth == 0 and not joins(tokens, text, match.end()):
            finish()
            continue
        if (
            kind == "number"
            and depth == 0
            and tokens
            and tokens[-1][0] == "space"
            and (len(tokens) < 2 or tokens[-2][0] in ("number", "letter", "money", "close"))
            and not (tokens[-2][0] == "number" and re.match(r"[0-9]+/[0-9]+", text[match.start() : match.start() + 20]))
        ):
            finish()
        depth = max(0, depth + (kind == "open") - (kind == "close"))
        if not tokens and (kind in ("space", "close") or token in "=*/^_!|%:"):
            continue
        tokens.append((kind, token))
    finish()
    return runs[-1] if runs else None


def joins(tokens: list[tuple[str, str]], text: str, end: int) -> bool:
    """True for a letter that stands next to a number, an operator or a bracket, as in 2x or x + 1."""
    if tokens and tokens[-1][0] != "space":
        return True
    if len(tokens) > 1 and tokens[-2][0] == "operator":
        return True
    return re.match(r" ?[-+*/^_=<>]|\(", text[end : end + 2]) is not None


def trimmed(tokens: list[tuple[str, str]]) -> str | None:
    """The text of a run, from its last equals sign on, without operators at its ends; None without a number in it."""
    while tokens and (
        tokens[-1][0] in ("space", "open") or (tokens[-1][0] == "operator" and tokens[-1][1] not in "%!π|")
    ):
        tokens = tokens[:-1]
    equals = [index for index, (_, token) in enumerate(tokens) if token == "="]
    if equals:
        tokens = tokens[equals[-1] + 1 :]
    if not any(kind in ("number", "money", "command") for kind, _ in tokens):
        return None
    text = "".join(token for _, token in tokens).strip()
    return balanced(text)


def balanced(text: str) -> str:
    """Without closing brackets that nothing opens and opening brackets that nothing closes, at the ends."""
    surplus = sum(text.count(sign) for sign in ")]") - sum(text.count(sign) for sign in "([")
    while surplus > 0 and text.endswith((")", "]")):
        text, surplus = text[:-1].rstrip(), surplus - 1
    while surplus < 0 and text.startswith(("(", "[")):
        text, surplus = text[1:].lstrip(), surplus + 1
    return text
