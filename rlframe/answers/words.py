"""Words: names, colours, yes and no. Their letters are never factors of a product."""

from __future__ import annotations

import re

from rlframe.answers.brackets import TEXT

VOWELS = set("aeiou")
SHORT_WORDS = {
    "no", "on", "up", "so", "go", "of", "if", "is", "he", "we", "me", "us", "or", "ok", "it", "in", "at", "by", "my",
    "to", "do", "an", "am",
}  # fmt: skip
SHOUTED = {"yes", "true", "none", "even", "odd", "both"}
FUNCTIONS = {
    "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "sqrt", "lim", "max", "min", "gcd", "lcm", "mod",
    "det", "arg", "deg", "dim", "ker", "sup", "inf",
}  # fmt: skip
RUN = re.compile(r"[A-Za-z][A-Za-z'.]*")
WORDS = re.compile(r"[A-Za-z][A-Za-z '’.,!?/&:\"()-]*")
FOREIGN = re.compile(r"(?=.*[^\W\d_a-zA-Z])[^\d\\^_=+*/<>$]+")  # a name in another script or with accents
ARTICLES = {"the", "a", "an"}


def is_word(letters: str) -> bool:
    """True for a run of letters that is read as a word; False for a product of variables: xy, abc, mgh.

    >>> [is_word(run) for run in ("cat", "abc", "xyz", "no", "ab", "east", "PQR")]
    [True, False, False, True, False, True, False]
    """
    letters = letters.strip("'.")
    if letters.lower() in FUNCTIONS:
        return False
    if len(letters) < 3:
        return letters.lower() in SHORT_WORDS
    if letters.isupper() and len(letters) < 5 and letters.lower() not in SHOUTED:
        return False  # points of a figure: ABC
    return bool(VOWELS & set(letters.lower())) and not set(letters.lower()) <= set("abcd")


def is_words(text: str) -> bool:
    """True if a text has letters only and at least one word."""
    match = TEXT.fullmatch(text)
    if match is not None:
        text = match[1]
        if len(text.strip()) > 2 and WORDS.fullmatch(text.strip()):
            return True
    text = TEXT.sub(r"\1", text).strip()
    if not text.isascii() and FOREIGN.fullmatch(text):
        return True
    if not WORDS.fullmatch(text):
        return False
    runs = RUN.findall(text)
    return any(is_word(run) for run in runs) and ("(" not in text or " " in text)


def spelled_words(text: str) -> str:
    """Lower case, no articles, no punctuation.

    >>> spelled_words(r"\\text{The  East-West line.}")
    'east west line'
    """
    text = TEXT.sub(r" \1 ", text).lower().replace("'s", "s")
    words = re.sub(r"[^\w']+|_", " ", text).split()
    words = [word for word in words if word not in ARTICLES] or words
    if words[0] in ("yes", "no", "true", "false") and re.match(r"\W*(?:yes|no|true|false)\s*[,.;:(-]", text):
        opposite = {"yes": "no", "no": "yes", "true": "false", "false": "true"}[words[0]]
        return words[0] if opposite not in words else " ".join(words)
    return " ".join(words)


HEDGES = re.compile(
    r"\b(?:or|not|no|never|cannot|isn't|wrong|either|maybe|perhaps|possibly|between|than|least|most|about|around|nearly"
    r"|approximately|almost|over|under|up to|minus|plus|times|half|twice|double|dozen|thousand|million|divided|of|out"
    r"|unless|if|but|except|instead|question|problem|unknown)\b",
    re.IGNORECASE,
)
NEGATIONS = re.compile(
    r"\b(?:or|not|no|never|cannot|either|maybe|perhaps|unless|if|between|than|least|most|half)\b", re.IGNORECASE
)
VALUE = re.compile(
    r"(?<![\w.\\])[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+,[0-9]+|[0-9]+)(?:\.[0-9]+)?(?: ?/ ?[0-9]+)?%?"
    r"|-?(?:[0-9]+ ?)?\\(?:frac|sqrt)(?:\{(?:[^{}]|\{[^{}]*\})*\}){1,2}(?:\\pi)?|-?[0-9]*\\pi(?![A-Za-z])"
)
# Words that deny, hedge or offer a choice in other languages.
FOREIGN_HEDGES = re.compile(
    r"\b(?:nicht|nein|kein\w*|falsch|falso|faux|неверно|incorrect\w*|oder|vielleicht|etwa|mehr|weniger|nie|ningun\w*|quizás|menos|más|pas|ou|peut-être|plus|moins|não|talvez"
    r"|non|forse|niet|geen|of|nie|lub|не|нет|или|больше|меньше|около|không|hoặc)\b|плюс|минус|половин\w*|тысяч\w*|миллион\w*|млн|тыс|минимум|максимум"
    r"|[不没非否或无約约负負半万亿億千百倍]|大于|小于|超过|超過|至少|至多|最多|最少|以上|以下|左右|之间|之間|分之|未満|ない|ません|または|マイナス"
    r"|아니|아님|또는|않|이상|이하|미만|약 ?(?=[0-9])|[0-9] ?[만억천배]",
    re.IGNORECASE,
)
FOREIGN_LETTERS = r"[^\W\d_a-zA-Z]"
LONE = re.compile(
    rf"(?:{FOREIGN_LETTERS}|[\s:,—-])*(?<![-])(?P<value>[^\s:,].*?)(?: ?[^\W\d_]*{FOREIGN_LETTERS}(?:[^\W\d_]|[\s.])*)?"
)
PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}(?![A-Za-z}])")


def lone_value(text: str) -> str | None:
    """The only formula between words of another script, or None.

    >>> lone_value("Ответ: 42 яблока"), lone_value("Ответ: не 42"), lone_value("选B")
    ('42', None, 'B')
    """
    if text.isascii() or FOREIGN_HEDGES.search(text):
        return None
    match = LONE.fullmatch(text)
    value = match["value"].strip() if match is not None else ""
    return value if value and value != text and not re.search(FOREIGN_LETTERS, value) else None


def sentence_value(text: str) -> str | None:
    """The single number of a sentence, or None: "She has 34 apples left". A sentence that hedges has none.

    >>> sentence_value("She has 34 apples left"), sentence_value("It is not 34"), sentence_value("34 and 35 are right")
    ('34', None, None)
    """
    if len(PROSE.findall(text)) < 2 or HEDGES.search(text) or FOREIGN_HEDGES.search(text):
        return None
    found = [match for match in VALUE.finditer(text) if match[0].strip()]
    if len(found) != 1 or re.search(
        r"[0-9\\]", text[: found[0].start()] + text[found[0].end() :].replace(r"\text", "")
    ):
        return None
    return found[0][0]
