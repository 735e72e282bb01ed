"""Language consistency of DeepSeek-R1: the share of a thought's words that are in the target language."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Set
from functools import lru_cache
from itertools import chain
from typing import Literal

from rlframe.reward.base import Reward
from rlframe.types import Completion, Prompt, Verdict

OPEN, CLOSE = "<think>", "</think>"

# Letters of other scripts than Latin and Greek.
LETTERS = r"\u0400-\u1dff\u3005\u3041-\ufaff\U00020000-\U0003ffff"
NON_LATIN = re.compile(rf"[\u0370-\u03ff{LETTERS}]+")

# Code and formulas. Every alternative starts with a literal (which re searches for fast) and stops where the same
# one could start again (so that a text of openings takes linear time). A formula holds no words of another script:
# thoughts in Chinese do not escape by dollar signs.
NOT_PROSE = re.compile(
    r"```.*?(?:```|\Z)"  # also a fence that the length limit left open
    r"|`[^`\n]*`"
    rf"|\$\$[^${LETTERS}]*\$\$"
    rf"|\$(?!\s)[^$\n{LETTERS}]*(?<!\s)\$(?!\d)"  # not "$5 and $10"
    rf"|\\\[(?:(?!\\[\[\]])[^{LETTERS}])*\\\]"
    rf"|\\\((?:(?!\\[()])[^{LETTERS}])*\\\)"
    rf"|\\begin\{{(?:(?!\\begin|\\end)[^{LETTERS}])*\\end\b"
    r"|\\[A-Za-z]+"
    r"|</?[a-z]+>"
    r"|https?://[\x21-\x7e]+",
    re.DOTALL,
)

# Scripts written without spaces: characters of a word. Chinese: 1.54 to 1.71 in the four corpora of the SIGHAN bakeoff
# (Emerson, 2005, https://aclanthology.org/I05-3017).
UNSPACED = {
    "zh": (re.compile(r"[\u3005\u3105-\u312f\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+"), 1.65),
    "ja": (re.compile(r"[\u3041-\u30fa\u30fc-\u30ff]+"), 2.0),
    "th": (re.compile(r"[\u0e01-\u0e3a\u0e40-\u0e4e]+"), 4.0),
}
SPACED = {
    "ru": re.compile(r"[\u0400-\u052f]+"),
    "ko": re.compile(r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7af]+"),
    "ar": re.compile(r"[\u0620-\u065f\u066e-\u06d3\u06d5-\u06ef\u06fa-\u06ff\u0750-\u077f\u08a0-\u08ff]+"),
    "hi": re.compile(r"[\u0900-\u0963\u0971-\u097f]+"),
    "he": re.compile(r"[\u0590-\u05ff]+"),
    "el": re.compile(r"[\u0370-\u03ff]{2,}"),  # one letter is mathematics
    "other": re.compile(r"[\u0530-\u058f\u0700-\u074f\u0780-\u089f\u0980-\u0dff\u0e80-\u10ff\u1200-\u1dff]+"),
}
HAN, KANA = UNSPACED["zh"][0], UNSPACED["ja"][0]
MIN_KANA = 0.2  # of the kana and Han characters of a Japanese sentence; fewer is Chinese that quotes

SENTENCE_END = re.compile(r"[.!?;:\n。！？；：]+")
# Two letters at least, in no identifier (a_max, f(x), x2, maxSum) and next to no operator: variables are mathematics.
# The look-behinds come after the first letter, for which re then searches fast.
UPPER, LOWER, OPERATORS = r"A-ZÀ-ÖØ-Þ", r"a-zß-öø-ɏ\u1e00-\u1eff", r"=+×÷^≤≥≠≈"
LATIN_WORD = re.compile(
    rf"[{UPPER}{LOWER}](?<![\w{OPERATORS}].)(?<![{OPERATORS}] .)"
    rf"(?:[{LOWER}]++|[{UPPER}]++)(?![\w(\[{OPERATORS}]| [{OPERATORS}])"
)
LOWERCASE_WORD = re.compile(r"\b[a-zß-ÿ]\w")
FUNCTIONS = (
    "sin cos tan cot sec csc log ln exp max min gcd lcm mod arcsin arccos arctan sqrt lim det dim ker deg dx dy dt"
)
UNITS = "mm cm dm km mg kg ml kb mb gb hz kwh mph rad"
SYMBOLS = frozenset([*FUNCTIONS.split(), *UNITS.split()])

# The commonest words of languages that share the Latin script: they are a third to a half of any prose.
FUNCTION_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the of and to in is it that we this so if be are for with as have has had not on at by from or but was"
        " were can will would should which what when how many much there then each all one two three now let need"
        " find because also them they their he his him she her you your my our us its do does did don doesn isn than"
        " more less only no yes wait okay ok hmm first second next since thus therefore hence gives get got think"
        " check just must who into out up about after before an any some these those here both another very where"
        " compute calculate solve simplify evaluate prove determine answer number plus minus times total maybe"
        " equal equals value sum product step left together day days week hour hours minutes year dollars same per",
        "fr": "le la les de des du un une et est que qui qu il ils elle en dans pour pas sur avec par ce cette ces"
        " nous vous je ne au aux se sont donc mais où si comme son sa ses leur être avoir fait alors tout chaque"
        " combien avait ont peut deux trois nombre calculer calculez calculons trouver trouvez soit ainsi car quand"
        " après encore faut reste réponse quatre était quel quelle cela jusqu",
        "es": "el la los las de del que en un una es por con para se lo su sus al como más pero si este esta eso"
        " entonces cuántos cuántas cuánto tiene hay cada son está ya todo porque cuando muy sobre también entre ha"
        " había tenemos nos dos tres número calcula calcular calcule halla hallar resuelve encuentra luego después"
        " ahora respuesta fue eran tenía cuatro hasta desde cuál",
        "de": "der die das und ist nicht ein eine einen einem einer zu den von mit sich auf für dem des im wir also"
        " dass es sind hat wie auch als aus bei nach er sie ich wenn dann jetzt noch nur aber oder werden wird kann"
        " haben pro insgesamt viele beträgt daher somit berechne berechnen bestimme löse ergibt jeder jede zwei drei"
        " ihre ihr ihren ihm sein seine seinen hatte hatten waren wurde wurden diese dieser jeden mehr bis zum zur nun"
        " vier antwort",
        "it": "il lo la gli le di che un una uno con non del della dei delle nel nella da si sono ha abbiamo"
        " quindi ma più anche questo questa se ogni quanti quante quanto al alla allora poi ci due tre numero calcola"
        " trova risolvi ora dopo perché essere risposta",
        "pt": "os um uma de da dos das que em para com não por se são mais mas ao na nas nos foi ele ela seu sua temos"
        " então cada quantos quantas quanto também isso este esta tem há já dois três número calcule encontre resolva"
        " depois agora porque até resposta portanto",
        "nl": "de het een van en dat niet zijn voor met dus wij te op aan die er als maar om ook dan heeft hebben"
        " hoeveel elke naar uit bij nog worden wordt kan totaal deze dit antwoord",
        "other": "jest nie że się na jak więc ale tylko są dla mamy oraz bir ve bu için ile değil olarak olan yang dan"
        " adalah ini itu dengan untuk dari tidak maka jadi là và của có không được một các với och att det är som för"
        " inte har vi så ett ya wa kwa ni katika kila este și care sunt pentru je že jsou také på og ikke ja on ovat"
        " hogy egy nem az",
    }.items()
}
LANGUAGES_OF = {
    word: [language for language, known in FUNCTION_WORDS.items() if word in known]
    for word in frozenset().union(*FUNCTION_WORDS.values())
}
ENGLISH = FUNCTION_WORDS["en"]
FOREIGN = frozenset(LANGUAGES_OF) - ENGLISH
# A sentence is in another language than the one before it when it has so many more of the other's function words; one
# more where that share of the whole text's words are the other's and not its main language's.
MIN_LEAD, EXPECTED_SHARE = 2, 0.08
MIN_WORDS, MIN_SHARE = 12, 0.1  # a text of so many words with fewer of a language's among them is not in it


class Language(Reward):
    """Share, 0 to 1, of the chain of thought's words that are in `language` (DeepSeek-AI, 2025, arXiv:2501.12948).

    The chain of thought is what stands in `<think>…</think>`; before `</think>` where the chat template holds the
    opening tag, and the whole text where there is no tag. Code, formulas, numbers, variables and names are no words,
    nor are words of another script that a prompt in the target language holds too: prose put into a code block goes
    unseen. A thought without words scores 0, as "unparseable": any other score would pay for not thinking.

    Scripts tell most languages (Cyrillic counts as ru, Arabic as ar, Han as zh unless there is kana in the sentence);
    function words tell those that share the Latin script, sentence by sentence. Words are counted where spaces
    divide them, else by characters: 1.65 are a Chinese word.
    """

    name: Literal["language"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is sound)
    # "prompt": that of the prompt's last user message; where it has no words, the one that the thought uses most.
    language: Literal["prompt", "en", "zh", "fr", "es", "de", "it", "pt", "nl", "ja", "ko", "ru", "ar", "hi", "th"]

    def __call__(self, prompt: Prompt, completion: Completion) -> float | Verdict:
        asked = next((m["content"] for m in reversed(prompt.messages) if m["role"] == "user"), "")
        target = main_language(asked) if self.language == "prompt" else self.language
        quoted = words_of_other_scripts(asked) if main_language(asked) == target else frozenset()
        counts = count_words(chain_of_thought(completion.text), quoted)
        if not counts:
            return Verdict(score=0.0, status="unparseable", seconds=0.0, detail="the thought has no words")
        return (counts[target] if target else max(counts.values())) / counts.total()


def chain_of_thought(text: str) -> str:
    end = text.rfind(CLOSE)
    end = len(text) if end < 0 else end
    start = text.find(OPEN, 0, end)
    return text[0 if start < 0 else start + len(OPEN) : end]


@lru_cache(maxsize=1024)  # a group's completions share their prompt
def main_language(text: str) -> str | None:
    """The language of most words; None where there are none."""
    counts = count_words(text, frozenset())
    return max(counts, key=counts.__getitem__) if counts else None


@lru_cache(maxsize=1024)
def words_of_other_scripts(text: str) -> frozenset[str]:
    """What a text in one script quotes from others: Latin words of a Chinese text, Chinese runs of an English one."""
    latin, others = LATIN_WORD.findall(NON_LATIN.sub("\n", text)), NON_LATIN.findall(text)
    return frozenset(others if main_language(text) in FUNCTION_WORDS else map(str.lower, latin))


def count_words(text: str, ignored: frozenset[str]) -> Counter[str]:
    """Language -> number of its words in the prose of a text, without the ignored; languages without words are absent.

    Those of the scripts that are written without spaces are fractions.
    """
    prose = NOT_PROSE.sub(" ", text)
    if prose.isascii() or not NON_LATIN.search(prose):
        return latin_words(prose, ignored)
    if ignored:
        prose = NON_LATIN.sub(lambda run: "\n" if run[0] in ignored else run[0], prose)
    return script_words(prose) + latin_words(NON_LATIN.sub("\n", prose), ignored)


def script_words(prose: str) -> Counter[str]:
    """Words of the scripts that tell their language."""
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


def latin_words(text: str, ignored: frozenset[str]) -> Counter[str]:
    """Words in Latin script, sentence by sentence: one that hardly tells is in the language of the one before it."""
    sentences = [sentence_words(sentence, ignored) for sentence in SENTENCE_END.split(text)]
    words = [word for sentence in sentences for word in sentence]
    language = latin_language(words, before="en", expected=FUNCTION_WORDS.keys())
    if FOREIGN.isdisjoint(words):
        return +Counter({language: len(words)})
    hits = function_words([word for word in words if language not in LANGUAGES_OF.get(word, ())])
    expected = {language} | {found for found, number in hits.items() if number >= EXPECTED_SHARE * len(words)}
    counts: Counter[str] = Counter()
    for sentence in sentences:
        if sentence:
            language = latin_language(sentence, language, expected)
            counts[language] += len(sentence)
    return counts


def latin_language(words: list[str], before: str, expected: Set[str]) -> str:
    """The language whose function words lead those of `before` by enough, else `before`; "other" where all have few.

    expected: the languages for which a lead of one is enough.
    """
    hits = function_words(words)
    best = max(hits, key=hits.__getitem__, default=before)
    lead = 1 if best in expected else MIN_LEAD
    language = best if hits[best] >= hits[before] + lead else before
    return "other" if len(words) >= MIN_WORDS and hits[language] < MIN_SHARE * len(words) else language


def sentence_words(sentence: str, ignored: frozenset[str]) -> list[str]:
    """Its Latin words in lower case; none where they are a name: all capitalized, two or three or an unknown one."""
    words = [w for w in map(str.lower, LATIN_WORD.findall(sentence)) if w not in SYMBOLS and w not in ignored]
    is_name = not LOWERCASE_WORD.search(sentence) and (1 < len(words) < 4 or LANGUAGES_OF.keys().isdisjoint(words))
    return [] if is_name else words


def function_words(words: list[str]) -> Counter[str]:
    """Language -> number of its function words; a word may be several languages'."""
    return Counter(chain.from_iterable(LANGUAGES_OF[word] for word in words if word in LANGUAGES_OF))
