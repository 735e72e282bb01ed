"""Final answers: where a completion gives one, its plain spelling, and what can be said of two without algebra.

Pure text and exact fractions, microseconds each: most answers in training need no more, and hostile ones get no
further.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import inf, log10
from typing import Literal, TypeAlias, TypeVar

Place: TypeAlias = Literal["answer", "boxed", "hash", "last"]

LAST_CHARS = 4096  # of the text, in which "last" looks; bounds what unclosed delimiters cost
BOXED_OR_BRACE = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?"
# A formula in its delimiters, or a number as it stands in prose. Pandoc's rule for $: no white space inside, no digit
# behind, so that "$5 and then $6" holds two prices and no formula.
EXPRESSION = re.compile(
    r"\\\((?P<round>.+?)\\\)|\\\[(?P<square>.+?)\\\]|\$\$(?P<display>[^$]+)\$\$|\$(?P<inline>[^\s$](?:[^$\n]*[^\s$])?)\$(?![0-9])"
    rf"|(?P<number>(?<![\w.])[+-]?[$€£]?{DIGITS}(?:/{DIGITS})?(?:\s*\\?%)?)",
    re.DOTALL,
)

CURRENCY = str.maketrans({sign: "" for sign in "$€£¥"} | {"−": "-"})
NO_SPACE = re.compile(r"\\!\s*")  # LaTeX's negative space, which some data sets put behind commas of thousands
DELIMITED = re.compile(r"\\\(((?:(?!\\\)).)*)\\\)|\\\[((?:(?!\\\]).)*)\\\]|\*\*([^*]*)\*\*", re.DOTALL)
WHOLE_TEXT = re.compile(r"\\(?:text|mathrm|mbox)(?:bf|it|rm|normal)?\s*\{([^{}]*)\}|\\math(?:bf|it)\s*\{([^{}]*)\}")
THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
NUMBER = re.compile(r"[+-]?(?:[0-9]{1,100}(?:\.[0-9]{0,100})?|\.[0-9]{1,100})")
FRACTION = re.compile(
    r"(?P<sign>[+-]?)(?:\\[dtc]?frac\s*\{(?P<over>-?[0-9]{1,100})\}\s*\{(?P<under>[0-9]{1,100})\}"
    r"|(?P<left>[0-9]{1,100}) ?/ ?(?P<right>[0-9]{1,100}))"
)
REPEATING = re.compile(
    r"(?P<sign>[+-]?)(?P<whole>[0-9]{1,100})\.(?P<once>[0-9]{0,50})\\overline\s*\{(?P<period>[0-9]{1,50})\}"
)
PERCENT = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*(?:\\?%|percent)\s*\}|\bpercent)$")
# Behind a number: up to three words or a \text{}, unless one of them says another number or a choice; degrees. What
# ends the answer is looked for first: only where there is a unit is all of the rest searched for such a word.
UNIT = re.compile(
    r"(?<=[0-9.}]) ?"
    r"(?=(?:(?<= )[A-Za-z]{3,}(?: [A-Za-z]+){0,2}|\\(?:text|mathrm|mbox) ?\{[A-Za-z. ]*\}(?:\^(?:[23]|\{[23]\}))?)$)"
    r"(?!.*\b(?:and|or|plus|minus|times|over|mod|squared|cubed|factorial|half|halves|thirds?|quarters?"
    r"|hundreds?|thousands?|millions?|billions?|trillions?|dozens?|percent|sqrt|to)\b).*"
    r"|(?<=[0-9.}]) ?(?:\^ ?(?:\\circ|\{ ?\\circ ?\})|°)$"
)
WORDS = re.compile(r"(?!(?i:infinity|sqrt)\b)(?:(?=.*[A-Za-z]{4})[A-Za-z][A-Za-z '-]*|yes|no|odd|up)", re.IGNORECASE)
TOLERANCE = Fraction(1, 10**6)  # math-verify compares decimals at six places

# What no honest answer needs and sympy spends seconds or gigabytes on.
MAX_NESTING = 40
MAX_EXPONENT = 6  # as powers of ten, roughly: exponents below a million
MAX_OPERAND = 5  # of a factorial, binomial, sum or product
INTO_EXPONENT = r"\s*(?:\^|\*\*)[\s{(+-]*"
OPERAND = rf"(?<![0-9])([0-9]++)(?:{INTO_EXPONENT}([0-9]++))?"  # whole runs of digits: no retries inside them
EXPONENT = re.compile(INTO_EXPONENT + OPERAND)
FACTORIAL = re.compile(OPERAND + r"[\s})]*!")
LONG_LOOP = re.compile(r"\\(?:[dt]?binom|sum|prod)(?![A-Za-z])")


def final_answer(text: str, places: list[Place]) -> str | None:
    """The answer that a completion ends with: the last one in the first of `places` that has any, or None.

    answer: inside the last `<answer>…</answer>`, there inside a box if it has one. boxed: the last `\\\\boxed{…}`.
    hash: the line after the last `####`. last: the last formula in delimiters or number of the text, for models that
    know no convention. Linear in the text's length, whatever it holds.

    >>> final_answer("<answer>It is \\\\boxed{5}</answer>", ["answer"]), final_answer("so\\n#### 5", ["boxed", "hash"])
    ('5', '5')
    """
    for place in places:
        match place:
            case "answer":
                found = last_tagged(text)
            case "boxed":
                found = last_boxed(text)
            case "hash":
                found = after_hashes(text)
            case "last":
                found = last_expression(text)
        if found is not None and found.strip():
            return found.strip()
    return None


def last_tagged(text: str) -> str | None:
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    if start < 0:
        return None
    content = text[start + len("<answer>") : end]
    return last_boxed(content) or content


def last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{…}` whose braces close, the inner one where they nest."""
    starts: list[int | None] = []  # of each open brace: where its content begins if it is a box's
    last: tuple[int, int] | None = None
    for token in BOXED_OR_BRACE.finditer(text):
        if token[0].startswith("\\boxed"):
            starts.append(token.end())
        elif token[0] == "{":
            starts.append(None)
        elif token[0] == "}" and starts:
            start = starts.pop()
            if start is not None and (last is None or start > last[0]):
                last = start, token.start()
    return text[last[0] : last[1]] if last else None


def after_hashes(text: str) -> str | None:
    _, hashes, tail = text.rpartition("####")
    return tail.strip().partition("\n")[0] if hashes else None


def last_expression(text: str) -> str | None:
    found = [match[match.lastgroup or 0] for match in EXPRESSION.finditer(text[-LAST_CHARS:])]
    return found[-1] if found else None


def reference_answer(reference: str) -> str:
    r"""A reference as data sets give it, in plain spelling: also a whole solution that ends in `\boxed{}` or `####`."""
    return normalize(last_boxed(reference) or after_hashes(reference) or reference)


def normalize(answer: str) -> str:
    r"""Without currency, delimiters, a final period, a `\text{}` around it all and commas of thousands.

    Runs of white space become one, but stay: "1 2" is not 12, and (1,234) is a pair.
    """
    answer = NO_SPACE.sub("", answer.replace(r"\$", "").translate(CURRENCY))
    answer = " ".join(answer.split())
    answer = answer.removesuffix(".").strip()
    for wrapped in (DELIMITED, WHOLE_TEXT):
        if match := wrapped.fullmatch(answer):
            answer = match[match.lastindex or 0].strip()
    plain = answer.replace("{,}", ",").replace(r"\,", ",")
    return plain.replace(",", "") if THOUSANDS.fullmatch(plain) else answer


def is_words(answer: str) -> bool:
    return WORDS.fullmatch(answer) is not None


def same_text(reference: str, answer: str) -> bool | None:
    """True where they are equal; False where the reference is words, in any case; None: ask further.

    Words go no further because math-verify reads them as products of letters: "east" would equal "seat".
    """
    if reference == answer:
        return True
    return reference.casefold() == answer.casefold() if is_words(reference) else None


def same_number(reference: str, answer: str) -> bool | None:
    """Whether two integers, decimals or simple fractions are equal; None where one of them is something else.

    None also where they differ by no more than rounding could: by a millionth, of the reference where that is
    below 1. There math-verify decides, which compares decimals at six places and everything else exactly.
    """
    r, a = number(reference), number(answer)
    if r is None or a is None:
        return None
    pairs = readings(*r, *a)
    if any(x == y for x, y in pairs):
        return True
    return False if all(abs(x - y) > TOLERANCE * min(1, abs(x)) for x, y in pairs) else None


def number(answer: str) -> tuple[Fraction, bool] | None:
    """The value of an integer, decimal or fraction with or without a unit, and whether a percent sign follows it."""
    body, percent = split_percent(answer)
    body = UNIT.sub("", body)
    value = None
    if NUMBER.fullmatch(body):
        return Fraction(body), percent
    if match := FRACTION.fullmatch(body):
        over, under = int(match["over"] or match["left"]), int(match["under"] or match["right"])
        value = Fraction(over, under) if under else None
    elif match := REPEATING.fullmatch(body):  # math-verify reads none of these
        value = Fraction(f"{match['whole']}.{match['once']}")
        value += Fraction(int(match["period"]), (10 ** len(match["period"]) - 1) * 10 ** len(match["once"]))
    if match is None or value is None:
        return None
    return -value if match["sign"] == "-" else value, percent


def split_percent(answer: str) -> tuple[str, bool]:
    """Its body, and whether a percent sign follows that."""
    body = PERCENT.sub("", answer)
    return body, body != answer


N = TypeVar("N")  # numbers, or expressions of sympy


def readings(reference: N, reference_percent: bool, answer: N, answer_percent: bool) -> list[tuple[N, N]]:
    """The pairs of which one must be equal. A percent sign on one side only is a unit or means hundredths.

    Data sets ask "what percentage …?" and leave the sign out of the reference, so 50 = 50%; and 0.5 = 50% is true.
    """
    pairs = [(reference, answer)]
    if reference_percent and not answer_percent:
        pairs.append((reference / 100, answer))  # pyright: ignore[reportOperatorIssue]
    if answer_percent and not reference_percent:
        pairs.append((reference, answer / 100))  # pyright: ignore[reportOperatorIssue]
    return pairs


def too_big(answer: str) -> str | None:
    """Why an answer is not worth parsing, or None."""
    depth = 0
    for character in answer:
        depth += (character in "([{") - (character in ")]}")
        if depth > MAX_NESTING:
            return f"the answer nests more than {MAX_NESTING} brackets"
    if any(magnitude(*match.groups()) >= MAX_EXPONENT for match in EXPONENT.finditer(answer)):
        return f"the answer has an exponent of 10^{MAX_EXPONENT} or more"
    looped = re.finditer(OPERAND, answer) if LONG_LOOP.search(answer) else FACTORIAL.finditer(answer)
    if any(magnitude(*match.groups()) >= MAX_OPERAND for match in looped):
        return f"the answer has a factorial, binomial, sum or product of 10^{MAX_OPERAND} or more"
    return None


def magnitude(base: str, exponent: str | None) -> float:
    """log10 of base^exponent, which are digits; inf for exponents of more than 9."""
    log = log10(int(base[:9]) or 1) + max(0, len(base) - 9)
    return log * (1 if exponent is None else int(exponent) if len(exponent) <= 9 else inf)
