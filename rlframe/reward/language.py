"""Language consistency of DeepSeek-R1: the share of the thoughts' words that are in the target language.

Scripts tell most languages apart: Cyrillic counts as ru, Arabic as ar, Han as zh unless its sentence has kana.
Function words and words of everyday arithmetic tell apart the languages in Latin script, sentence by sentence. In texts
of few words their letters, elisions and endings tell too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Set
from functools import lru_cache
from typing import Literal

from rlframe.answers.thoughts import THINK_TAGS, chain_of_thought
from rlframe.reward.base import Reward
from rlframe.reward.languages import (
    EVIDENCE_WORDS,
    FUNCTION_WORDS,
    LANGUAGES_OF,
    LATIN_WORD,
    NON_LATIN,
    SPACED,
    SYMBOLS,
    UNSPACED,
    evidence,
    marks,
)
from rlframe.reward.prose import prose_of
from rlframe.types import Completion, Prompt, Verdict

HAN, KANA = UNSPACED["zh"][0], UNSPACED["ja"][0]
MIN_KANA = 0.2  # share of kana among a Japanese sentence's kana and Han; below, the sentence is Chinese with a quote

SENTENCE_END = re.compile(r"[.!?;:\n。！？；：]+")
LOWERCASE_WORD = re.compile(r"\b[a-zß-ÿ]\w")
FOREIGN = frozenset(LANGUAGES_OF) - EVIDENCE_WORDS["en"]
NO_EVIDENCE = "no evidence"  # of a text whose words and letters tell no language
# A sentence changes the language if it has MIN_LEAD more function words of the new language than of the previous
# sentence's. One more suffices if the new language is expected: if EXPECTED_SHARE of the text's words are function
# words of it and not of the text's main language.
MIN_LEAD, EXPECTED_SHARE = 2, 0.08
# In a text of MIN_WORDS or more, at least MIN_SHARE are function words of its language; else its language is "other".
MIN_WORDS, MIN_SHARE = 12, 0.1
# In a shorter text parts of words count too; a word of LANGUAGES_OF is worth as many.
WORD_MARKS = 3


class Language(Reward):
    """Share, 0 to 1, of the chain of thought's words that are in `language` (DeepSeek-AI, 2025, arXiv:2501.12948).

    The chain of thought is the text in `<think>…</think>`; the text before `</think>` if the chat template holds the
    opening tag; the whole text if there is no tag. Code, formulas, numbers, variables and names count as no words, but
    sentences that stand in code or formulas do, and so do letters of other scripts (see `prose.py`). Words of another
    script that a prompt in the target language quotes do not count either.

    A thought without words scores 0, as "unparseable": any higher score would pay for not thinking. So does a thought
    whose words tell no language ("Gabra: 5"): it is no more English than French. Where several languages write a
    thought alike ("Total: 5"), it is in the target language.

    Spaces divide words. In scripts without spaces characters are counted: 1.65 of them make a Chinese word.
    """

    name: Literal["language"]
    # "prompt": the language of the prompt's last user message; if it tells none, the thought's commonest language.
    language: Literal["prompt", "en", "zh", "fr", "es", "de", "it", "pt", "nl", "ja", "ko", "ru", "ar", "hi", "th"]

    def tags(self) -> list[str]:
        return THINK_TAGS

    def __call__(self, prompt: Prompt, completion: Completion) -> float | Verdict:
        question = next((m["content"] for m in reversed(prompt.messages) if m["role"] == "user"), "")
        return self.share(question, completion.text)

    def share(self, question: str, text: str) -> float | Verdict:
        """The score of a completion's text, whose prompt ends with `question`."""
        target = main_language(question) if self.language == "prompt" else self.language
        quoted = words_of_other_scripts(question) if main_language(question) == target else frozenset()
        counts = count_words(chain_of_thought(text), quoted, favoured=target)
        if counts.keys() <= {NO_EVIDENCE}:
            fault = "the thought's words tell no language" if counts else "the thought has no words"
            return Verdict(score=0.0, status="unparseable", seconds=0.0, detail=fault)
        return (counts[target] if target else max(counts.values())) / counts.total()


@lru_cache(maxsize=1024)  # a group's completions share their prompt
def main_language(text: str) -> str | None:
    """The language of most words.

    None for a text without words, whose words tell no language, or that tells two languages equally: "Quanto é 2 + 3?"
    is Italian or Portuguese.
    """
    language = commonest_language(text)
    tied = any(commonest_language(text, other) != language for other in FUNCTION_WORDS)
    return None if tied else language


def commonest_language(text: str, favoured: str | None = None) -> str | None:
    """The language of most words, `favoured` where it ties; None for a text that tells no language."""
    counts = count_words(text, frozenset(), favoured)
    del counts[NO_EVIDENCE]
    return max(counts, key=counts.__getitem__) if counts else None


@lru_cache(maxsize=1024)
def words_of_other_scripts(text: str) -> frozenset[str]:
    """Quotes from other scripts: the Latin words of a Chinese text, the Chinese runs of an English text."""
    latin, others = LATIN_WORD.findall(NON_LATIN.sub("\n", text)), NON_LATIN.findall(text)
    return frozenset(others if commonest_language(text) in FUNCTION_WORDS else map(str.lower, latin))


def count_words(text: str, ignored: frozenset[str], favoured: str | None) -> Counter[str]:
    """Language -> number of words in the prose of `text`, without the `ignored` words.

    Languages without words are absent. Scripts written without spaces have fractions of words. A text in Latin script
    that tells two languages equally ("Total: 5") is in the `favoured` one. The words of a text that tells none count
    under NO_EVIDENCE.
    """
    prose = prose_of(text)
    if prose.isascii() or not NON_LATIN.search(prose):
        return latin_words(prose, ignored, favoured, alone=True)
    if ignored:
        prose = NON_LATIN.sub(lambda run: "\n" if run[0] in ignored else run[0], prose)
    return script_words(prose) + latin_words(NON_LATIN.sub("\n", prose), ignored, favoured, alone=False)


def script_words(prose: str) -> Counter[str]:
    """Language -> number of words, for the scripts that tell their language."""
    text = " ".join(NON_LATIN.findall(prose))
    counts: Counter[str] = Counter()
    for language, pattern in SPACED.items():
        counts[language] = len(pattern.findall(text))
    characters = {language: count(pattern, text) for language, (pattern, _) in UNSPACED.items()}
    if characters["ja"]:
        kanji = sum(japanese_han(sentence) for sentence in SENTENCE_END.split(prose))
        characters["ja"] += kanji
        characters["zh"] -= kanji
    for language, (_, per_word) in UNSPACED.items():
        counts[language] = characters[language] / per_word  # pyright: ignore[reportArgumentType]
    return counts


def japanese_han(sentence: str) -> int:
    """Number of a sentence's Han characters that are Japanese: all or none."""
    kana, han = count(KANA, sentence), count(HAN, sentence)
    return han if kana >= MIN_KANA * (kana + han) else 0


def count(pattern: re.Pattern[str], text: str) -> int:
    return sum(map(len, pattern.findall(text)))


def latin_words(text: str, ignored: frozenset[str], favoured: str | None, *, alone: bool) -> Counter[str]:
    """Language -> number of words in Latin script. A sentence without a clear lead continues the previous language.

    `alone`: the text has no other script.
    """
    parts = SENTENCE_END.split(text)
    whole = [words_of(part, ignored) for part in parts]
    sentences = list(map(without_name, parts, whole))
    if looks_like_names := alone and not any(sentences):  # "Bonjour Anna !" is a name beside other sentences only
        sentences = whole
    words = [word for sentence in sentences for word in sentence]
    hits = evidence(words)
    if len(words) < MIN_WORDS:
        # Words that languages share ("Addition: 5") tell the favoured one, whatever their letters look like.
        shared = favoured is not None and 0 < hits[favoured] == max(hits.values())
        weighted = Counter({other: WORD_MARKS * number for other, number in hits.items()})
        hits = weighted if shared else weighted + marks(text)
    if not hits:
        return Counter() if looks_like_names else +Counter({NO_EVIDENCE: len(words)})
    language = latin_language(hits, len(words), favoured or "", FUNCTION_WORDS.keys())
    if FOREIGN.isdisjoint(words):
        return +Counter({language: len(words)})
    hits = evidence([word for word in words if language not in LANGUAGES_OF.get(word, ())])
    expected = {language} | {other for other, number in hits.items() if number >= EXPECTED_SHARE * len(words)}
    counts: Counter[str] = Counter()
    for sentence in sentences:
        if sentence:
            language = latin_language(evidence(sentence), len(sentence), language, expected)
            counts[language] += len(sentence)
    return counts


def latin_language(hits: Counter[str], words: int, previous: str, expected: Set[str]) -> str:
    """The language whose `hits` lead those of the `previous` language by enough, else `previous`.

    A lead of 1 is enough for `expected` languages. "other": too few hits for any language.
    """
    best = max(FUNCTION_WORDS, key=hits.__getitem__)
    lead = 1 if best in expected else MIN_LEAD
    language = best if hits[best] >= hits[previous] + lead else previous
    return "other" if words >= MIN_WORDS and hits[language] < MIN_SHARE * words else language


def words_of(sentence: str, ignored: frozenset[str]) -> list[str]:
    """The Latin words of a sentence in lower case."""
    return [w for w in map(str.lower, LATIN_WORD.findall(sentence)) if w not in SYMBOLS and w not in ignored]


def without_name(sentence: str, words: list[str]) -> list[str]:
    """The `words` of a sentence; none of a name: "Bob", "Alice Smith", "Zürich".

    Names are capitalized throughout, and have two or three words or no word of LANGUAGES_OF.
    """
    is_name = not LOWERCASE_WORD.search(sentence) and (1 < len(words) < 4 or LANGUAGES_OF.keys().isdisjoint(words))
    return [] if is_name else words
