"""Final answers: extraction from a completion, plain spelling, and comparison without algebra.

Pure text and exact fractions, microseconds each. Most answers in training need no algebra, and hostile answers never
reach it.
"""

from __future__ import annotations

import re
from fractions import Fraction
from math import inf, log10
from typing import Any, Literal, TypeAlias

from rlframe.reward.thoughts import last_tagged

Convention: TypeAlias = Literal["answer", "boxed", "hash", "last"]  # marks the final answer; see `final_answer`

LAST_CHARS = 4096  # end of the text that "last" searches; bounds the cost of unclosed delimiters
BOXED_OR_BRACE = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?"
# A formula in delimiters, or a number in prose. Pandoc's rule for $: no white space next to it inside, no digit behind
# it, so "$5 and then $6" has two prices and no formula.
EXPRESSION = re.compile(
    r"\\\((?P<round>.+?)\\\)|\\\[(?P<square>.+?)\\\]|\$\$(?P<display>[^$]+)\$\$|\$(?P<inline>[^\s$](?:[^$\n]*[^\s$])?)\$(?![0-9])"
    rf"|(?P<number>(?<![\w.])[+-]?[$€£]?{DIGITS}(?:/{DIGITS})?(?:\s*\\?%)?)",
    re.DOTALL,
)

CURRENCY = str.maketrans({sign: "" for sign in "$€£¥"} | {"−": "-"})
NO_SPACE = re.compile(r"\\!\s*")  # LaTeX's negative space; some data sets write 32,\!000
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
# A unit behind a number: up to three words or a \text{}, or degrees. Words for another number or a choice are no units.
# The first lookahead finds a unit at the answer's end; only then does the second one search the answer for such words.
UNIT = re.compile(
    r"(?<=[0-9.}]) ?"
    r"(?=(?:(?<= )[A-Za-z]{3,}(?: [A-Za-z]+){0,2}|\\(?:text|mathrm|mbox) ?\{[A-Za-z. ]*\}(?:\^(?:[23]|\{[23]\}))?)$)"
    r"(?!.*\b(?:and|or|plus|minus|times|over|mod|squared|cubed|factorial|half|halves|thirds?|quarters?"
    r"|hundreds?|thousands?|millions?|billions?|trillions?|dozens?|percent|sqrt|to)\b).*"
    r"|(?<=[0-9.}]) ?(?:\^ ?(?:\\circ|\{ ?\\circ ?\})|°)$"
)
WORDS = re.compile(r"(?!(?i:infinity|sqrt)\b)(?:(?=.*[A-Za-z]{4})[A-Za-z][A-Za-z '-]*|yes|no|odd|up)", re.IGNORECASE)
TOLERANCE = Fraction(1, 10**6)  # math-verify compares decimals to six places

# Bounds on answers that cost sympy seconds or gigabytes; no honest answer exceeds them.
MAX_NESTING = 40
MAX_EXPONENT = 6  # log10: exponents below a million
MAX_OPERAND = 5  # log10 of an operand of a factorial, binomial, sum or product
POWER_SIGN = r"\s*(?:\^|\*\*)[\s{(+-]*"
OPERAND = rf"(?<![0-9])([0-9]++)(?:{POWER_SIGN}([0-9]++))?"  # possessive: no retries inside a run of digits
EXPONENT = re.compile(POWER_SIGN + OPERAND)
FACTORIAL = re.compile(OPERAND + r"[\s})]*!")
LONG_LOOP = re.compile(r"\\(?:[dt]?binom|sum|prod)(?![A-Za-z])")


def final_answer(text: str, conventions: list[Convention]) -> str | None:
    r"""The last answer by the first of `conventions` that the completion uses, or None.

    answer: the text in the last `<answer>…</answer>`, or in a box inside it. boxed: the last `\boxed{…}`. hash: the
    line after the last `####`. last: the last delimited formula or number of the text, for models that follow no
    convention. The time is linear in the text's length, even for hostile texts.

    >>> final_answer("<answer>It is \\boxed{5}</answer>", ["answer"]), final_answer("so\n#### 5", ["boxed", "hash"])
    ('5', '5')
    """
    for convention in conventions:
        match convention:
            case "answer":
                tagged = last_tagged(text) or ""
                answer = last_boxed(tagged) or tagged
            case "boxed":
                answer = last_boxed(text)
            case "hash":
                answer = after_hashes(text)
            case "last":
                answer = last_expression(text)
        if answer and answer.strip():
            return answer.strip()
    return None


def last_boxed(text: str) -> str | None:
    r"""Content of the last `\boxed{…}` with closed braces; of nested boxes, the inner one."""
    starts: list[int | None] = []  # for each open brace: start of a box's content; None: another brace
    last: tuple[int, int] | None = None  # start and end of a box's content
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
    expressions = [match[match.lastgroup or 0] for match in EXPRESSION.finditer(text[-LAST_CHARS:])]
    return expressions[-1] if expressions else None


def reference_answer(reference: str) -> str:
    r"""A reference in plain spelling. A whole solution that ends in `\boxed{}` or `####` counts as its answer."""
    return normalize(last_boxed(reference) or after_hashes(reference) or reference)


def normalize(answer: str) -> str:
    r"""Plain spelling: no currency, delimiters, final period, `\text{}` around the answer, or commas of thousands.

    Runs of white space become one space: "1 2" is not 12. Only a whole number loses its commas: (1,234) is a pair.
    """
    answer = NO_SPACE.sub("", answer.replace(r"\$", "").translate(CURRENCY))
    answer = " ".join(answer.split())
    answer = answer.removesuffix(".").strip()
    for wrapper in (DELIMITED, WHOLE_TEXT):
        if match := wrapper.fullmatch(answer):
            answer = match[match.lastindex or 0].strip()
    plain = answer.replace("{,}", ",").replace(r"\,", ",")
    return plain.replace(",", "") if THOUSANDS.fullmatch(plain) else answer


def is_words(answer: str) -> bool:
    return WORDS.fullmatch(answer) is not None


def same_text(reference: str, answer: str) -> bool | None:
    """True for equal texts, False for different words (in any case), None if texts alone cannot decide.

    Words never reach math-verify, which reads them as products of letters: "east" would equal "seat".
    """
    if reference == answer:
        return True
    return reference.casefold() == answer.casefold() if is_words(reference) else None


def same_number(reference: str, answer: str) -> bool | None:
    """True for equal integers, decimals or simple fractions, False for different ones, None if algebra must decide.

    None also for numbers that rounding could make equal: they differ by a millionth or less (of the reference, if that
    is below 1). math-verify decides then, which compares decimals to six places and other numbers exactly.
    """
    reference_number, answer_number = number(reference), number(answer)
    if reference_number is None or answer_number is None:
        return None
    pairs = readings(*reference_number, *answer_number)
    if any(x == y for x, y in pairs):
        return True
    return False if all(abs(x - y) > TOLERANCE * min(1, abs(x)) for x, y in pairs) else None


def number(answer: str) -> tuple[Fraction, bool] | None:
    """Value of an integer, decimal or fraction with or without a unit, and True if a percent sign follows."""
    body, percent = split_percent(answer)
    body = UNIT.sub("", body)
    value = None
    if NUMBER.fullmatch(body):
        return Fraction(body), percent
    if match := FRACTION.fullmatch(body):
        over, under = int(match["over"] or match["left"]), int(match["under"] or match["right"])
        value = Fraction(over, under) if under else None
    elif match := REPEATING.fullmatch(body):  # math-verify cannot read repeating decimals
        value = Fraction(f"{match['whole']}.{match['once']}")
        value += Fraction(int(match["period"]), (10 ** len(match["period"]) - 1) * 10 ** len(match["once"]))
    if match is None or value is None:
        return None
    return -value if match["sign"] == "-" else value, percent


def split_percent(answer: str) -> tuple[str, bool]:
    """The answer without a final percent sign, and True if it has the sign."""
    body = PERCENT.sub("", answer)
    return body, body != answer


def readings(reference: Any, reference_percent: bool, answer: Any, answer_percent: bool) -> list[tuple[Any, Any]]:
    """Pairs of numbers or sympy expressions, of which one pair must be equal.

    A percent sign on one side only is a unit or means hundredths. Data sets ask "what percentage …?" and leave the sign
    out of the reference, so 50 = 50%; and 0.5 = 50% is true.
    """
    pairs = [(reference, answer)]
    if reference_percent and not answer_percent:
        pairs.append((reference / 100, answer))
    if answer_percent and not reference_percent:
        pairs.append((reference, answer / 100))
    return pairs


def too_big(answer: str) -> str | None:
    """The reason not to parse an answer, or None."""
    depth = 0
    for character in answer:
        depth += (character in "([{") - (character in ")]}")
        if depth > MAX_NESTING:
            return f"the answer nests more than {MAX_NESTING} brackets"
    if any(magnitude(*match.groups()) >= MAX_EXPONENT for match in EXPONENT.finditer(answer)):
        return f"the answer has an exponent of 10^{MAX_EXPONENT} or more"
    operands = re.finditer(OPERAND, answer) if LONG_LOOP.search(answer) else FACTORIAL.finditer(answer)
    if any(magnitude(*match.groups()) >= MAX_OPERAND for match in operands):
        return f"the answer has a factorial, binomial, sum or product of 10^{MAX_OPERAND} or more"
    return None


def magnitude(base: str, exponent: str | None) -> float:
    """log10 of base^exponent, both given as digits; inf for an exponent of more than 9 digits."""
    log = log10(int(base[:9]) or 1) + max(0, len(base) - 9)
    return log * (1 if exponent is None else int(exponent) if len(exponent) <= 9 else inf)
