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
EVIDENCE_WORDS = {
    language: words.union(_DATA["evidence_words"].get(language, "").split())
    for language, words in FUNCTION_WORDS.items()
}


def _languages_of(words_of: dict[str, frozenset[str]]) -> dict[str, list[str]]:
    """Word -> its languages, in the order of the file."""
    words = frozenset[str]().union(*words_of.values())
    return {word: [language for language in words_of if word in words_of[language]] for word in words}


LANGUAGES_OF = _languages_of(EVIDENCE_WORDS)
_OF_FUNCTION_WORD = _languages_of(FUNCTION_WORDS)
# Language -> parts of words that it writes, and few others: "ß", "l'", "-ción".
MARKS = {language: re.compile(pattern) for language, pattern in _DATA["marks"].items()}

_LOOKALIKES: dict[str, str] = _DATA["lookalikes"]
TO_CYRILLIC = str.maketrans(_LOOKALIKES["latin"], _LOOKALIKES["cyrillic"])
TO_LATIN = str.maketrans(
    _LOOKALIKES["cyrillic"] + _LOOKALIKES["greek"], _LOOKALIKES["latin"] + _LOOKALIKES["latin_of_greek"]
)


def function_words(words: list[str]) -> Counter[str]:
    """Language -> number of its function words; a word may belong to several languages."""
    return Counter(chain.from_iterable(_OF_FUNCTION_WORD[word] for word in words if word in _OF_FUNCTION_WORD))


def evidence(words: list[str]) -> Counter[str]:
    """Language -> number of its words; a word may belong to several languages."""
    return Counter(chain.from_iterable(LANGUAGES_OF[word] for word in words if word in LANGUAGES_OF))


def marks(text: str) -> Counter[str]:
    """Language -> number of its different marks in a text."""
    text = text.lower().replace("’", "'")
    return +Counter({language: len(set(pattern.findall(text))) for language, pattern in MARKS.items()})
