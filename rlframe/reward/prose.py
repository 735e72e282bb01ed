"""The prose of a thought: the text without code, formulas and addresses, but with the sentences that hide in them."""

from __future__ import annotations

import html
import re
import unicodedata
from urllib.parse import unquote

from rlframe.reward.languages import LATIN_WORD, LETTERS, TO_CYRILLIC, TO_LATIN, function_words

# Code and formulas. Every alternative starts with a literal, which re finds fast, and stops where the same alternative
# could start again, so a text of nothing but openings takes linear time. A formula holds no letters of LETTERS:
# Chinese thoughts between dollar signs still count.
NOT_PROSE = re.compile(
    r"```.*?(?:```|\Z)"  # \Z: a fence that the length limit left open
    r"|~~~.*?(?:~~~|\Z)"
    r"|`[^`\n]*`"
    rf"|\$\$[^${LETTERS}]*\$\$"
    rf"|\$(?!\s)[^$\n{LETTERS}]*(?<!\s)\$(?!\d)"  # but "$5 and $10" is prose
    rf"|\\\[(?:(?!\\[\[\]])[^{LETTERS}])*\\\]"
    rf"|\\\((?:(?!\\[()])[^{LETTERS}])*\\\)"
    rf"|\\begin\{{(?:(?!\\begin|\\end)[^{LETTERS}])*\\end\b"
    r"|\\[A-Za-z]+"
    r"|</?[a-z]+>"
    r"|https?://[\x21-\x7e]+",
    re.DOTALL,
)
# Of code: letters that no code needs, and ends of sentences. Greek ones may be variables, unless many stand together.
WRITTEN = re.compile(rf"[{LETTERS}]+|[\u0370-\u03ff]{{4,}}|[。！？；]")
# A piece of code is prose if half of its lines are sentences, with MIN_WORDS or more in all. A sentence has LEAST_WORDS
# or more, of which SHARE are function words of one language, and nothing but words, numbers and punctuation.
SENTENCE = re.compile(r"[A-Za-zÀ-ɏ\u1e00-\u1eff0-9 \t,.:;!?'’\"%-]+(?<![:;])")
KEYWORDS = re.compile(r"\b(?:import|return|None|True|False|NULL|SELECT)\b")  # of lines of code that read like sentences
MIN_WORDS, LEAST_WORDS, SHARE = 8, 4, 0.4
FOUR_WORDS = re.compile(r"(?<![^\W\d_])(?:[^\W\d_]++[ ,'’-]++){3}")  # fast, to be sure of no sentence
# Between code and its comment, a formula and the text in it.
MARKS = re.compile(r"[#*`~]+|//+|--+|<!--|\\(?:text|textbf|textit|textrm|mbox|mathrm)\{|[{}$]+")

_INVISIBLE = r"\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff"
# Forms of letters for other widths and fonts: full-width, half-width, circled, mathematical.
_FORMS = r"\u24b6-\u24e9\uff21-\uff3a\uff41-\uff5a\uff66-\uff9f\U0001d400-\U0001d7ff"
INVISIBLE, FORMS = re.compile(f"[{_INVISIBLE}]+"), re.compile(f"[{_FORMS}]+")
COMBINING = re.compile(r"[\u0300-\u036f]+")
UNUSUAL = re.compile(rf"[{_INVISIBLE}{_FORMS}\u0300-\u036f]")  # what _plain_letters changes; it is slow
ESCAPE = re.compile(r"\\u([0-9A-Fa-f]{4})")
# Words that may mix the scripts that look alike, and a place where one does.
MIXED = re.compile(r"[A-Za-z\u0370-\u052f]{2,}")
MIXTURE = re.compile(r"[\u0370-\u052f](?:(?<=[A-Za-z].)|(?=[A-Za-z]))")


def prose_of(text: str) -> str:
    """The text as a reader sees it, without code, formulas and addresses, in which only sentences are left.

    Letters that are written by number or in another form are those letters.
    """
    if "&#" in text:
        text = html.unescape(text)
    if "\\u" in text:
        text = ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
    if not text.isascii():
        if UNUSUAL.search(text):
            text = _plain_letters(text)
        if MIXTURE.search(text):
            text = MIXED.sub(_in_one_script, text)
    return NOT_PROSE.sub(_sentences, text)


def _plain_letters(text: str) -> str:
    text = FORMS.sub(lambda match: unicodedata.normalize("NFKC", match[0]), INVISIBLE.sub("", text))
    if COMBINING.search(text):
        text = COMBINING.sub("", unicodedata.normalize("NFC", text))
    return text


def _in_one_script(word: re.Match[str]) -> str:
    """A word with lookalikes of another script in it, in the script that a reader takes it for."""
    letters = word[0]
    if letters.isascii() or not re.search("[A-Za-z]", letters):
        return letters
    cyrillic = any("\u0400" <= letter <= "\u052f" and ord(letter) not in TO_LATIN for letter in letters)
    return letters.translate(TO_CYRILLIC if cyrillic else TO_LATIN)


def _sentences(hidden: re.Match[str]) -> str:
    """The part of a piece of code, formula or address that is prose."""
    text = hidden[0]
    if text.startswith("http"):
        return " " if "%" not in text else f" {' '.join(WRITTEN.findall(unquote(text)))} "
    others = (
        [] if text.isascii() else list(filter(None, (" ".join(WRITTEN.findall(line)) for line in text.splitlines())))
    )
    latin = _latin_sentences(text) if FOUR_WORDS.search(text) else []
    return "\n".join(["", *latin, *others, ""]) if latin or others else " "


def _latin_sentences(text: str) -> list[str]:
    """The sentences in Latin letters, if they are most of a piece of code or a formula."""
    lines = [line for line in text.splitlines() if line.strip(" \t`~")]
    if text[:3] in ("```", "~~~") and len(lines) > 1:
        lines = lines[1:] if text[3] != "\n" else lines  # without the name of the code's language
    sentences = [part for line in lines for part in MARKS.split(line) if _is_sentence(part)]
    words = sum(len(LATIN_WORD.findall(sentence)) for sentence in sentences)
    return sentences if words >= MIN_WORDS and 2 * len(sentences) >= len(lines) else []


def _is_sentence(part: str) -> bool:
    if KEYWORDS.search(part) or not SENTENCE.fullmatch(part.strip()):
        return False
    words = [word.lower() for word in LATIN_WORD.findall(part)]
    return len(words) >= LEAST_WORDS and max(function_words(words).values(), default=0) >= SHARE * len(words)
