"""Numbers, words, digits in a base and marks of formulas: equal or not, without algebra."""

from __future__ import annotations

import re
from fractions import Fraction

from rlframe.answers.values import Based, Expression, Number, Value, Words
from rlframe.answers.words import is_word

TOLERANCE = Fraction(1, 10**6)  # a decimal is compared to six places; below 1, of the reference
RUN = re.compile(r"\\(?:text|operatorname) ?\{[^{}]*\}|\\[A-Za-z]+|[A-Za-z]+")
WORK = re.compile(
    r"\\(int|oint|iint|sum|prod|lim|gcd|lcm|det)(?![A-Za-z])"
    r"|\\frac\{(?:d|\\partial)(?:\^\{?[0-9]\}?)? ?[a-z]?\}\{ ?(d|\\partial)"
)
STATEMENT = re.compile(r".*?\b(?:is|are|was|were|be|equals|facing|facing to)\b (?P<what>.+)")
PREPOSITION = re.compile(r"^(?:(?:to|on|in|at|facing|heading|called|named|point|towards?|always|also) )+")
NOUN = re.compile(r" (?:function|number|solutions?|direction|side|one|team|option|colou?r|angle|triangle)$")
BASED_DIGITS = re.compile(r"[0-9]+\)?_\{[^{}]*\}")


def same_number(reference: Number, answer: Number) -> bool:
    """True for equal numbers. Beside a decimal, or a fraction without a finite decimal, six places are enough.

    A percent sign on one side only is a unit or means hundredths. Data sets ask "what percentage …?" and leave the sign
    out of the reference, so 50 = 50%; and 0.5 = 50% is true. A reference below 1 is no percentage: 0.5 is not 0.5%.
    """
    pairs = [(reference.value, answer.value)]
    if reference.percent and not answer.percent:
        pairs.append((reference.value / 100, answer.value))
    if answer.percent and not reference.percent:
        is_percentage = abs(reference.value) >= 1
        pairs = [*pairs[: int(is_percentage)], (reference.value, answer.value / 100)]
    if any(x == y for x, y in pairs):
        return True
    is_rounded = "." in answer.text and not has_finite_decimal(reference.value)
    return ("." in reference.text or is_rounded) and any(abs(x - y) <= TOLERANCE * min(1, abs(x)) for x, y in pairs)


def has_finite_decimal(value: Fraction) -> bool:
    return 10 ** value.denominator.bit_length() % value.denominator == 0


def same_words(reference: Value, answer: Value) -> bool:
    match reference, answer:
        case Words(text=expected), Words(text=given):
            if expected == given:
                return True
            stated = STATEMENT.fullmatch(given)
            if stated is None or {"or", "not", "nor", "either", "neither", "if", "never"} & set(given.split()):
                return core(given) == core(expected)
            return core(stated["what"]) == core(expected)
        case (Words(text=words), Expression(text=text)) | (Expression(text=text), Words(text=words)):
            return text.replace(" ", "").casefold() == words
    return False


def core(words: str) -> str:
    """Without prepositions before and nouns of kinds behind: "to east", "odd function", "on tuesday"."""
    return NOUN.sub("", PREPOSITION.sub("", words)) or words


def same_digits(reference: Value, answer: Value) -> bool:
    """True for the same digits in the same base. An answer may leave the base out, but not convert the number."""
    match reference, answer:
        case Based(), Based():
            return reference == answer
        case (Based(digits=digits), Number(text=text)) | (Number(text=text), Based(digits=digits)):
            return digits == text.lstrip("0")
    return False


def letter_of(value: Value) -> str | None:
    match value:
        case Words(text=text) | Expression(text=text) if len(text) == 1:
            return text.lower()
    return None


def marks(value: Number | Expression) -> set[str]:
    """Parts of a formula that math-verify drops or multiplies and that both sides must have: words, bases, primes."""
    if isinstance(value, Number):
        return set()
    words = {
        run.lower() for run in RUN.findall(value.text) if run.startswith(r"\text") or (run[0] != "\\" and is_word(run))
    }
    words = {re.sub(r"\\text ?\{ ?([^{}]*?) ?\}", r"\1", word) for word in words}
    primes = set(re.findall(r"[A-Za-z]'+", value.text))
    return {word for word in words if len(word) > 1} | primes | set(BASED_DIGITS.findall(value.text))


def restates(reference: Number | Expression, answer: Number | Expression) -> bool:
    """True for an answer that leaves an integral, sum, limit, derivative or divisor to be worked out."""
    return bool(set(WORK.findall(answer.text)) - set(WORK.findall(reference.text)))


def without_percent(value: Number | Expression) -> Number | Expression:
    return Number(value.value, False, value.text) if isinstance(value, Number) else Expression(value.text)
