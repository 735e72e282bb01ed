r"""Numbers: the exact value of an integer, decimal, fraction, mixed number, power of ten or number in words."""

from __future__ import annotations

import re
from fractions import Fraction

MAX_DIGITS = 400  # of a power that is worked out here; longer ones are left to algebra

DECIMAL = r"(?:[0-9]{1,100}(?:\.[0-9]{0,100})?|\.[0-9]{1,100})"
NUMBER = re.compile(rf"[+-]? ?{DECIMAL}")
FRACTION = re.compile(
    r"(?P<sign>[+-]? ?)(?P<whole>[0-9]{1,100}(?: (?=[0-9])| ?(?=\\)))?"
    rf"(?:\\frac\{{ ?(?P<over>-? ?{DECIMAL}) ?\}}\{{ ?(?P<under>-?{DECIMAL}) ?\}}"
    rf"|(?P<left>{DECIMAL}) ?/ ?(?P<right>-?{DECIMAL}))"
)
POWER = re.compile(
    rf"(?P<sign>[+-]? ?)(?:(?P<factor>{DECIMAL}) ?(?:\\cdot|\\times|x) ?)?"
    rf"(?P<base>{DECIMAL})\^\{{ ?(?P<exponent>-? ?[0-9]{{1,6}}) ?\}}"
)
REPEATING = re.compile(
    r"(?P<sign>[+-]? ?)(?P<whole>[0-9]{0,100})\.(?P<once>[0-9]{0,50})"
    r"(?:\\(?:overline|bar|dot)\s*\{(?P<period>[0-9]{1,50})\}|\((?P<round>[0-9]{1,50})\)"
    r"|(?P<digits>[0-9]{1,20}?)(?:(?P=digits)){1,50} ?(?:\\ldots|\.\.\.))"
)
COMMA_PERIOD = re.compile(r"[+-]?[0-9]{1,100},(?:[0-9]{0,50}\(|[0-9]{0,50}\\overline|[0-9]{3,50} ?(?:\\ldots|\.\.\.))")
ELLIPSIS = re.compile(r"(?P<sign>[+-]? ?)(?P<whole>[0-9]{1,100})\.(?P<digits>[0-9]{3,50}) ?(?:\\ldots|\.\.\.)")
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")
INDIAN = re.compile(r"[+-]?[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?")
SPACED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?: [0-9]{3})+(?:[.,][0-9]+)?")
SWISS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:'[0-9]{3})+(?:\.[0-9]+)?")
POINTS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3})+,[0-9]+|[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3}){2,}")
DECIMAL_COMMA = re.compile(r"[+-]?(?:[0-9]{1,100},[0-9]{1,2}|[0-9]{1,100},[0-9]{4,100}|0,[0-9]{3})")

SMALL = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
ONES = {word: value for value, word in enumerate(SMALL)}
TENS = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
}  # fmt: skip
SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
PARTS = {
    "half": 2, "halves": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8,
    "ninth": 9, "tenth": 10, "hundredth": 100, "thousandth": 1000,
}  # fmt: skip
SCALED = re.compile(r"(.*[0-9}]) ?(?:\\text\s*\{ ?)?(hundred|thousand|million|billion|trillion|dozen)s?(?: ?\})?")
ORDINAL = re.compile(r"([0-9]{1,9})(?:st|nd|rd|th|\^?\{? ?\\text\{ ?(?:st|nd|rd|th) ?\} ?\}?)")


def ungrouped(text: str) -> str:
    """A whole number or decimal without its separators of thousands.

    >>> ungrouped("1,234.5"), ungrouped("1 000 000"), ungrouped("1.234,5"), ungrouped("1 2")
    ('1234.5', '1000000', '1234.5', '1 2')
    """
    if THOUSANDS.fullmatch(text):
        return text.replace(",", "")
    if SPACED.fullmatch(text):
        return text.replace(" ", "").replace(",", ".")
    if SWISS.fullmatch(text):
        return text.replace("'", "")
    if POINTS.fullmatch(text):
        return text.replace(".", "").replace(",", ".")
    return text


def numeral(text: str) -> Fraction | None:
    r"""The value of a text that is a number as a whole, or None.

    >>> numeral(r"2\frac{1}{2}"), numeral(r"3 \times 10^{8}"), numeral(r"0.\overline{3}"), numeral("thirty-four")
    (Fraction(5, 2), Fraction(300000000, 1), Fraction(1, 3), Fraction(34, 1))
    """
    text = ungrouped(text)
    if COMMA_PERIOD.match(text):
        text = text.replace(",", ".", 1)
    if NUMBER.fullmatch(text):
        return Fraction(text.replace(" ", ""))
    if match := FRACTION.fullmatch(text):
        return fraction(match)
    if match := POWER.fullmatch(text):
        return power(match)
    if (match := REPEATING.fullmatch(text)) or (match := ELLIPSIS.fullmatch(text)):
        return repeating(match)
    if match := ORDINAL.fullmatch(text):
        return Fraction(match[1])
    if match := SCALED.fullmatch(text):
        value = numeral(match[1].strip())
        scale = (SCALES | {"hundred": 100, "dozen": 12})[match[2]]
        return None if value is None else value * scale
    return in_words(text)


def signed(match: re.Match[str], value: Fraction) -> Fraction:
    return -value if "-" in match["sign"] else value


def fraction(match: re.Match[str]) -> Fraction | None:
    over = Fraction((match["over"] or match["left"]).replace(" ", ""))
    under = Fraction((match["under"] or match["right"]).replace(" ", ""))
    whole = match["whole"]
    if under == 0 or (whole and not 0 < over < under):
        return None
    return signed(match, over / under + (int(whole) if whole else 0))


def power(match: re.Match[str]) -> Fraction | None:
    base, exponent = Fraction(match["base"]), int(match["exponent"].replace(" ", ""))
    if abs(exponent) * len(match["base"]) > MAX_DIGITS or (base == 0 and exponent <= 0):
        return None
    return signed(match, Fraction(match["factor"] or 1) * base**exponent)


def repeating(match: re.Match[str]) -> Fraction | None:
    groups = match.groupdict()
    period = groups.get("period") or groups.get("round") or groups["digits"]
    once = groups.get("once") or ""
    if match.re is ELLIPSIS:
        once, period = ellipsis_period(groups["digits"])
    if not period:
        return None
    value = Fraction(f"{groups['whole'] or 0}.{once or 0}")
    return signed(match, value + Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(once)))


def ellipsis_period(digits: str) -> tuple[str, str]:
    """The digits before a period at the end, and the period: two copies of it, or three of a single digit."""
    for length in range(1, len(digits) // 2 + 1):
        period = digits[-length:]
        times = 3 if length == 1 else 2
        if digits.endswith(period * times):
            return digits[:-length], period
    return digits, ""


def in_words(text: str) -> Fraction | None:
    """The value of a number in English words: "one hundred and five", "two thirds", "minus three"."""
    words = text.lower().replace("-", " ").split()
    if not words or len(words) > 20:
        return None
    if words[0] in ("minus", "negative"):
        value = in_words(" ".join(words[1:]))
        return None if value is None else -value
    if words[0] in ("a", "an") and len(words) > 1 and (words[1] == "hundred" or words[1] in SCALES):
        words[0] = "one"
    if len(words) > 3 and words[-3] == "and" and (part := in_words(" ".join(words[-2:]))) is not None and 0 < part < 1:
        value = whole_words(words[:-3])
        return None if value is None else value + part
    part = words[-1].removesuffix("s") if words[-1] != "halves" else "half"
    if part in PARTS and ((len(words) == 1 and part == "half") or len(words) > 1):
        count = Fraction(1) if words[:-1] in ([], ["a"], ["an"]) else whole_words(words[:-1])
        return None if count is None else count / PARTS[part]
    if words[-1] in ("dozen", "dozens"):
        count = Fraction(1) if words[:-1] in ([], ["a"]) else whole_words(words[:-1])
        return None if count is None else 12 * count
    return whole_words(words)


def whole_words(words: list[str]) -> Fraction | None:
    total = current = 0
    last = "and"
    for word in words:
        if word in ONES and (last in TENS or last in ("and", "hundred") or last in SCALES):
            current += ONES[word]
        elif word in TENS and (last in ("and", "hundred") or last in SCALES):
            current += TENS[word]
        elif word == "hundred" and 0 < current < 100:
            current *= 100
        elif word in SCALES and current:
            total, current = total + current * SCALES[word], 0
        elif not (word == "and" and (last == "hundred" or last in SCALES)):
            return None
        last = word
    return Fraction(total + current) if last != "and" else None
