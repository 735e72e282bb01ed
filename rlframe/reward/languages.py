"""Scripts and words of languages: the data of `languages.toml`, as patterns and sets."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from importlib import resources
from itertools import chain
from typing import Any

_DATA: dict[str, Any] = tomllib.loads((resources.files("rlframe.reward") / "languages.toml").read_text("utf-8"))

# Letters of all scripts but Latin and Greek.
LETTERS = r"\u0400-\u1dff\u3005\u3041-\ufaff\U00020000-\U0003ffff"
NON_LATIN = re.compile(rf"[\u0370-\u03ff{LETTERS}]+")

SPACED = {
    # A single letter of Greek is mathematics.
    language: re.compile(f"[{letters}]{'{2,}' if language == 'el' else '+'}")
    for language, letters in _DATA["scripts"]["spaced"].items()
}
UNSPACED = {  # language -> its characters, and their number in a word
    language: (re.compile(f"[{script['letters']}]+"), float(script["per_word"]))
    for language, script in _DATA["scripts"]["unspaced"].items()
}

# Two letters or more, outside identifiers (a_max, f(x), x2, maxSum) and away from operators: variables are mathematics.
# The look-behinds stand behind the first letter, so that re can search for that letter fast.
_UPPER, _LOWER, _OPERATORS = r"A-ZÀ-ÖØ-Þ", r"a-zß-öø-ɏ\u1e00-\u1eff", r"=+×÷^≤≥≠≈"
LATIN_WORD = re.compile(
    rf"[{_UPPER}{_LOWER}](?<![\w{_OPERATORS}].)(?<![{_OPERATORS}] .)"
    rf"(?:[{_LOWER}]++|[{_UPPER}]++)(?![\w(\[{_OPERATORS}]| [{_OPERATORS}])"
)
SYMBOLS = frozenset(" ".join(_DATA["symbols"].values()).split())
FUNCTION_WORDS = {language: frozenset(words.split()) for language, words in _DATA["function_words"].items()}
LANGUAGES_OF = {  # word -> the languages whose function word it is
    word: [language for language, words in FUNCTION_WORDS.items() if word in words]
    for word in frozenset().union(*FUNCTION_WORDS.values())
}

_LOOKALIKES: dict[str, str] = _DATA["lookalikes"]
TO_CYRILLIC = str.maketrans(_LOOKALIKES["latin"], _LOOKALIKES["cyrillic"])
TO_LATIN = str.maketrans(
    _LOOKALIKES["cyrillic"] + _LOOKALIKES["greek"], _LOOKALIKES["latin"] + _LOOKALIKES["latin_of_greek"]
)


def function_words(words: list[str]) -> Counter[str]:
    """Language -> number of its function words; a word may belong to several languages."""
    return Counter(chain.from_iterable(LANGUAGES_OF[word] for word in words if word in LANGUAGES_OF))
