r"""Readers of values with parts: lists, sets, tuples, intervals, unions, ratios, matrices, two signs."""

from __future__ import annotations

import re
from fractions import Fraction

from rlframe.answers import values
from rlframe.answers.brackets import TEXT, inside, pieces
from rlframe.answers.values import (
    Based,
    Collection,
    Either,
    Equation,
    Expression,
    Interval,
    Matrix,
    Number,
    Ratio,
    Read,
    Unreadable,
    Value,
    Words,
)  # fmt: skip
from rlframe.answers.words import PROSE

BASED = re.compile(r"\(?([0-9A-Fa-f]{1,200})\)?_ ?\{? ?(?:\\text ?\{ ?)?([0-9]{1,2}|[a-z]+) ?\}*")
BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
         "twelve": 12, "sixteen": 16, "bin": 2, "oct": 8, "hex": 16, "dec": 10}  # fmt: skip
MATRIX = re.compile(r"[(\[]? ?\\begin\{pmatrix\}(?P<body>(?:(?!\\begin|\\end).)*)\\end\{pmatrix\} ?[)\]]?", re.DOTALL)
FIGURE = re.compile(r"\\(?P<kind>angle|triangle) ?(?P<points>(?:[A-Z] ?){3})")
CASES = re.compile(r"\\begin\{cases\}(?P<body>(?:(?!\\begin|\\end).)*)\\end\{cases\}", re.DOTALL)
CONDITION = re.compile(r"\\text ?\{ ?(?:if|for|when|where|,)? ?\}|\b(?:if|for|when|where)\b")
PLUS_MINUS = re.compile(r"\\pm(?![A-Za-z])|^ ?\\mp(?![A-Za-z])")
ROWS = re.compile(r"(?:[A-Za-z.]{0,12}\()?\[ ?(?P<body>\[[^\[\]]*\](?: ?, ?\[[^\[\]]*\])*) ?\]\)?")
UNIT_VECTOR = re.compile(
    r"(?P<factor>[^ijk]*?) ?(?:\\text|\\hat|\\vec) ?\{ ?(?:\\text\{)?\\?(?P<name>[ijk])(?:math)?\}{1,2}"
)
VECTOR = re.compile(r"\{\\?[ijk](?:math)?\}")
POINT = re.compile(r"(?P<name>[A-Z])'* ?(?P<point>\(.*\))")
TERM = re.compile(r"\s*(?:[0-9.]+|\\sqrt\{[0-9]+\}|[a-z](?![a-z]))+\s*")  # of a ratio with the word "to"
MAX_ITEMS = 200  # of a list


def read_wrapped(text: str, read: Read) -> Value | None:
    """(x + 1), {x + 1} or \\text{…} around the whole."""
    for opening, closing in (("(", ")"), ("{", "}"), (r"\text{", "}")):
        content = inside(text, opening, closing)
        if content is None and opening.startswith("\\") and (match := TEXT.fullmatch(text)):
            content = match[1]
        if content is not None and (opening != "(" or len(pieces(content, is_comma)[0]) == 1):
            return read(content)
    return None


def is_comma(token: str) -> bool:
    return token in (",", ";")


SEPARATORS = [  # outer separators first: "x = 1, y = 2 or x = 2, y = 1"
    lambda token: token == "or",
    lambda token: token == ";",
    lambda token: token in (",", "and", "&"),
]


def read_list(text: str, read: Read) -> Value | None:
    for is_separator in SEPARATORS:
        texts, separators = pieces(text, is_separator)
        if not separators:
            continue
        items = [signs_apart(item, read(item)) for item in texts if item.strip()]
        if len(texts) > MAX_ITEMS:
            return Unreadable(f"more than {MAX_ITEMS} values")
        return combined(items, "and" in separators) if items else None
    return None


def signs_apart(text: str, value: Value) -> Value:
    r"""\pm 1 beside other values is two values of the list."""
    is_pair = PLUS_MINUS.search(text) is not None and isinstance(value, Collection) and value.kind == "set"
    return Collection("list", value.items) if is_pair and isinstance(value, Collection) else value


def combined(items: list[Value], with_and: bool) -> Value:
    """A list of values, flat; inequalities in a variable become the set of numbers that they describe."""
    if len(items) == 1:
        return items[0]
    if all(isinstance(item, Interval | values.Union) for item in items):
        names = {item.name for item in items if isinstance(item, Interval | values.Union)}
        if None not in names and len(names) == 1:
            low, high = items[0], items[1]
            if with_and and len(items) == 2 and isinstance(low, Interval) and isinstance(high, Interval):
                if low.high == values.INFINITY and high.low == values.MINUS_INFINITY:
                    return Interval(low.low, high.high, low.low_closed, high.high_closed, low.name)
                if high.high == values.INFINITY and low.low == values.MINUS_INFINITY:
                    return Interval(high.low, low.high, high.low_closed, low.high_closed, low.name)
            return values.Union(tuple(items), names.pop())
    flat: list[Value] = []
    for item in items:
        if isinstance(item, Either):  # 3,14 beside other values is two numbers
            item = item.readings[-1]
        nested = isinstance(item, Collection) and item.kind == "list" and not has_names(item)
        flat.extend(item.items if nested and isinstance(item, Collection) else [item])
    return Collection("list", tuple(flat))


def has_names(item: Collection) -> bool:
    names = {value.name for value in item.items if isinstance(value, Equation)}
    return len(names) > 1


def read_based(text: str, read: Read) -> Value | None:
    match = BASED.fullmatch(text)
    if match is None or not (any(digit.isdigit() for digit in match[1]) or (len(match[1]) > 1 and match[2] == "16")):
        return None
    base = int(match[2]) if match[2].isdigit() else BASES.get(match[2])
    if base is None or not 2 <= base <= 16 or any(int(digit, 16) >= base for digit in match[1]):
        return None
    return Based(match[1].lower().lstrip("0") or "0", base)


def read_bracketed(text: str, read: Read) -> Value | None:
    """A set, tuple, interval or vector."""
    content = inside(text, r"\{", r"\}")
    if content is not None:
        return read_set(content, read)
    for opening, closing in (("(", ")"), ("[", "]"), ("(", "]"), ("[", ")"), (r"\langle", r"\rangle")):
        content = inside(text, opening, closing)
        if content is None:
            continue
        texts, separators = pieces(content, is_comma)
        if not separators:
            return None
        items = tuple(read(item) for item in texts if item.strip())
        if len(items) == 2 and (opening == "[" or closing == "]"):
            return Interval(items[0], items[1], opening == "[", closing == "]")
        return Collection("list" if opening == "[" else "tuple", items) if len(items) > 1 else None
    return None


def read_set(content: str, read: Read) -> Value | None:
    """{1, 2}, or {x | condition}, which is what the condition says."""
    texts, separators = pieces(content, lambda token: token in (r"\mid", "|", ":"))
    if len(separators) == 1 and re.fullmatch(r"\s*[A-Za-z](?: ?\\in ?\\mathbb\{R\})?\s*", texts[0]):
        condition = texts[1].replace(r"\in \mathbb{R},", "")
        return read(condition)
    if separators:
        return Expression(rf"\{{{content}\}}")
    if content.strip() == r"\emptyset":  # a set with one element, which is no empty set
        return Words(r"\{\emptyset\}")
    texts, _ = pieces(content, lambda token: token in (",", ";", "and", "or"))
    items: list[Value] = []
    for item in (read(item) for item in texts if item.strip()):
        items.extend(item.items if isinstance(item, Collection) and item.kind == "set" and len(texts) > 1 else [item])
    return Collection("set", tuple(items))


def read_union(text: str, read: Read) -> Value | None:
    texts, separators = pieces(text, lambda token: token in (r"\cup", "U", "union"))
    if not separators or not all(item.strip() for item in texts):
        return None
    if separators[0] == "U" and not all(item.strip()[0] in "([\\" for item in texts):
        return None
    return values.Union(tuple(read(item) for item in texts))


def read_ratio(text: str, read: Read) -> Value | None:
    texts, separators = pieces(text, lambda token: token in (":", "to"))
    if not separators or not all(item.strip() and len(PROSE.findall(item)) < 2 for item in texts):
        return None
    if "to" in separators and not all(TERM.fullmatch(item) for item in texts):
        return None
    return Ratio(tuple(read(item) for item in texts))


def read_point(text: str, read: Read) -> Value | None:
    """P(1, 2) is a point; C(5, 2) may be one too, or a binomial coefficient."""
    match = POINT.fullmatch(text)
    if match is None or not isinstance(point := read(match["point"]), Collection) or point.kind != "tuple":
        return None
    arguments = pieces(match["point"][1:-1], is_comma)[0]
    if match["name"] != "C" or len(arguments) != 2:
        return point
    return Either((Expression(rf"\binom{{{arguments[0]}}}{{{arguments[1]}}}"), point))


def read_vector(text: str, read: Read) -> Value | None:
    """i - 2j + 3k with upright or hatted letters is (1, -2, 3)."""
    if not VECTOR.search(text):
        return None
    parts, end = {}, 0
    while match := UNIT_VECTOR.match(text, end):
        factor = match["factor"].strip().removeprefix("+").strip()
        parts[match["name"]] = read(factor + "1" if factor in ("", "-") else factor)
        end = match.end()
    if end < len(text) or len(parts) < 2:
        return None
    zero = Number(Fraction(0), text="0")
    return Collection("tuple", tuple(parts.get(name, zero) for name in ("ijk" if "k" in parts else "ij")))


def read_matrix(text: str, read: Read) -> Value | None:
    if match := ROWS.fullmatch(text):
        rows = [row.strip(" []") for row in re.split(r"\] ?, ?\[", match["body"])]
        return Matrix(tuple(tuple(read(cell) for cell in row.split(",")) for row in rows))
    match = MATRIX.fullmatch(text)
    if match is None:
        return None
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", match["body"]) if row.strip(" \\")]
    cells = tuple(tuple(read(cell) for cell in row.replace(r"\hline", "").split("&")) for row in rows)
    return Matrix(cells) if cells else Unreadable("an empty matrix")


def read_figure(text: str, read: Read) -> Value | None:
    """An angle or a triangle, named by its points: angle BAC is angle CAB, and triangle ABC is triangle CAB."""
    match = FIGURE.fullmatch(text)
    if match is None:
        return None
    points = match["points"].replace(" ", "")
    if match["kind"] == "triangle":
        points = "".join(sorted(points))
    return Words(f"{match['kind']} {min(points, points[::-1])}")


def read_cases(text: str, read: Read) -> Value | None:
    """A function by cases: a set of (value, condition). Rows without conditions are equations that hold together."""
    match = CASES.fullmatch(text)
    if match is None:
        return None
    rows = [[cell.strip(" ,.;") for cell in row.split("&")] for row in match["body"].split(r"\\") if row.strip()]
    if all(len(row) == 1 for row in rows):
        return combined([read(row[0]) for row in rows], True) if rows else None
    if any(len(row) != 2 for row in rows):
        return None
    pairs = [(read(value), read(CONDITION.sub(" ", condition).strip() or "otherwise")) for value, condition in rows]
    return Collection("set", tuple(Collection("tuple", pair) for pair in pairs))


def read_pair_of_signs(text: str, read: Read) -> Value | None:
    r"""a \pm b is the set of a + b and a - b."""
    if PLUS_MINUS.search(text) is None:
        return None
    upper = re.sub(r"\\mp(?![A-Za-z])", "-", PLUS_MINUS.sub("+", text))
    lower = re.sub(r"\\mp(?![A-Za-z])", "+", PLUS_MINUS.sub("-", text))
    items = (read(re.sub(r"^\s*\+\s*", "", upper)), read(lower))
    return Collection("set", items)
