"""Brackets: partners of brackets, and texts cut at separators that stand outside of all brackets. Linear time."""

from __future__ import annotations

import re
from collections.abc import Callable

TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[A-Za-z]+|[0-9]+|\s+|.", re.DOTALL)
TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
OPENING = {"(", "[", "{", r"\{", r"\langle", r"\lfloor", r"\lceil", r"\begin"}
CLOSING = {")", "]", "}", r"\}", r"\rangle", r"\rfloor", r"\rceil", r"\end"}


def nesting(text: str) -> int:
    """The number of brackets around the innermost part of a text."""
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest


def pieces(text: str, is_separator: Callable[[str], bool]) -> tuple[list[str], list[str]]:
    """The texts between separators outside of brackets, and the separators: n + 1 texts and n separators.

    >>> pieces("(1, 2), 3", lambda token: token == ",")
    (['(1, 2)', ' 3'], [','])
    """
    texts, separators, depth, start = [], [], 0, 0
    for match in TOKEN.finditer(text):
        token = match[0]
        if token in OPENING:
            depth += 1
        elif token in CLOSING:
            depth = max(0, depth - 1)
        elif depth == 0 and is_separator(token):
            texts.append(text[start : match.start()])
            separators.append(token)
            start = match.end()
    return [*texts, text[start:]], separators


def inside(text: str, opening: str, closing: str) -> str | None:
    """The text between an opening and a closing bracket that enclose all of `text`, or None.

    >>> inside("(x + 1)", "(", ")"), inside("(x)(y)", "(", ")")
    ('x + 1', None)
    """
    if not (text.startswith(opening) and text.endswith(closing)) or len(text) < len(opening) + len(closing):
        return None
    depth = 0
    for match in TOKEN.finditer(text):
        depth += (match[0] in OPENING) - (match[0] in CLOSING)
        if depth == 0:
            return text[len(opening) : -len(closing)] if match.end() == len(text) else None
    return None


def braced(text: str, command: str, opening: str = "", closing: str = "") -> str:
    r"""Every `command(…)` becomes `command{…}`, with `opening` and `closing` as the new brackets.

    >>> braced("2^(n+1)", "^", "{", "}")
    '2^{n+1}'
    """
    if command + "(" not in text:
        return text
    out = list(text)
    stack: list[int | None] = []
    for index, character in enumerate(text):
        if character == "(":
            stack.append(index if text.endswith(command, 0, index) else None)
        elif character == ")" and stack:
            start = stack.pop()
            if start is not None:
                out[start], out[index] = opening or "{", closing or "}"
    return "".join(out)
