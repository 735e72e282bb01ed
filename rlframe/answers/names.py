"""Left sides of equations: variables, values of functions, and labels that only name the right side."""

from __future__ import annotations

import re

VARIABLE = re.compile(
    r"\|?(?:[A-Za-z]|\\[a-z]+)(?:_ ?(?:\{[^{}]*\}|[A-Za-z0-9]))?(?:\^\{-1\}(?= ?\())?'*(?: ?\([^()]*\))?\|?"
)
COMMAND = re.compile(r"\\[A-Za-z]+(?:\{[a-z]*matrix\})?")
GREEK = re.compile(  # variables; π is a constant
    r"\\(?:alpha|beta|gamma|delta|(?:var)?epsilon|zeta|eta|(?:var)?theta|kappa|lambda|mu|nu|xi|rho|sigma|tau"
    r"|(?:var)?phi|chi|psi|omega|[A-Z][a-z]+)(?![A-Za-z])"
)
LETTER = re.compile(r"[A-Za-z]")


def is_constant(text: str) -> bool:
    """True for a text without variables; e and i count as constants."""
    if GREEK.search(text):
        return False
    bare = COMMAND.sub("", re.sub(r"\\text ?\{[^{}]*\}", "", text))
    return not any(letter not in "ei" for letter in LETTER.findall(bare))


def is_name(text: str) -> bool:
    """True for a variable or a function's value: x, a_1, f(x)."""
    return VARIABLE.fullmatch(text) is not None and not is_constant(text)


def is_label(text: str) -> bool:
    """True for a left side that only names what the right side gives: x, f(2), AB, a/b; False for 2x + y and x^2."""
    return not text or is_name(text) or (not re.search(r"[-+^]", text) and not text[0].isdigit())
