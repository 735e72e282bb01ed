r"""Units behind a number: what they measure and how much of it, so that 5 cm, 0.05 m and 5 m can be compared."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache
from typing import NamedTuple

from rlframe.answers.brackets import TEXT
from rlframe.answers.numerals import numeral

# dimension -> unit in lower case, singular -> its size in the dimension's first unit
SIZES: dict[str, dict[str, str]] = {
    "length": {
        "m meter metre": "1", "km kilometer kilometre": "1000", "cm centimeter centimetre": "1/100",
        "mm millimeter millimetre": "1/1000", "um micrometer micron": "1/1000000", "nm nanometer": "1/1000000000",
        "dm decimeter": "1/10", "inch inches in": "0.0254", "ft foot feet": "0.3048", "yd yard": "0.9144",
        "mi mile": "1609.344",
    },
    "mass": {
        "kg kilogram kilo": "1", "g gram gm": "1/1000", "mg milligram": "1/1000000", "ton tonne": "1000",
        "lb pound": "0.45359237", "oz ounce": "0.028349523125",
    },
    "time": {
        "s sec second": "1", "ms millisecond": "1/1000", "min minute": "60", "h hr hour": "3600", "day": "86400",
        "week": "604800", "month": "2629746", "year yr": "31556952",
    },
    "volume": {
        "l liter litre": "1", "ml milliliter millilitre cc": "1/1000", "cl centiliter": "1/100", "dl deciliter": "1/10",
        "gallon gal": "3.785411784", "quart qt": "0.946352946", "pint pt": "0.473176473", "cup": "0.2365882365",
    },
    "angle": {"° deg degree": "1", "arcmin arcminute": "1/60", "arcsec arcsecond": "1/3600"},
    "celsius": {"°c celsius": "1"}, "fahrenheit": {"°f fahrenheit": "1"}, "kelvin": {"kelvin": "1"},
    "dollar": {"dollar usd buck": "1", "cent": "1/100"}, "euro": {"euro eur": "1"}, "yen": {"yen jpy": "1"},
    "pound sterling": {"pounds_sterling gbp": "1"}, "rupee": {"rupee rs inr": "1"}, "yuan": {"yuan rmb": "1"},
    "force": {"n newton": "1", "kn": "1000"},
    "energy": {"j joule": "1", "kj kilojoule": "1000", "mj": "1000000", "ev": "0"},
    "power": {"w watt": "1", "kw kilowatt": "1000", "mw": "1000000"}, "voltage": {"v volt": "1"},
    "current": {"a amp ampere": "1", "ma": "1/1000"}, "frequency": {"hz hertz": "1", "khz": "1000", "mhz": "1000000"},
    "pressure": {"pa pascal": "1", "kpa": "1000", "atm": "101325"}, "resistance": {"ohm": "1"},
    "charge": {"c coulomb": "1"}, "amount": {"mol mole": "1"}, "speed": {"mph": "0.44704", "kmph kph kmh": "5/18"},
}  # fmt: skip
UNITS = {name: (dimension, Fraction(size))
         for dimension, sizes in SIZES.items() for names, size in sizes.items() for name in names.split()}  # fmt: skip
SPEEDS = {"mph": "mi/h", "kmph": "km/h", "kph": "km/h", "kmh": "km/h"}
POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
SINGLE = {"in", "m", "s", "h", "g", "l", "L", "N", "J", "W", "V", "A", "K", "C", "F"}  # also names of variables

VARIABLES = set("iejxyznkpqab")  # in \\text{}, yet no units

FACTOR = re.compile(r"(°[CF]?|[A-Za-z_]+\.?)(?:\^?\{?(-?[1-3])\}?)?")
# A unit at the end of a text, behind a digit or a bracket. The words "and", "or" and numbers' names are no units.
NO_UNIT = (
    r"and|or|plus|minus|times|over|mod|squared|cubed|factorial|half|halves|thirds?|quarters?|hundreds?|thousands?"
    r"|millions?|billions?|trillions?|dozens?|tausend|million(?:en)?|milliarden?|mil|mill[oó]n(?:es)?|mille|percent|sqrt|to|not|ist|est|es|nicht|falsch|falso|faux|wrong|incorrect|false|if|when|for|is|are|where|with|mod|choose|base"
)
WORD = rf"(?!(?i:{NO_UNIT})\b)[A-Za-z]+\.?(?:\^\{{-?[1-3]\}}|\^[23])?"
UNIT = re.compile(
    r"(?:(?<=[0-9.)}])|(?<=\\pi))(?P<space> ?)(?P<unit>(?:\^\{\\circ\} ?(?:\\text ?\{ ?)?[CFK]?\b ?\}?|\^\{\\circ\})"
    r"|(?:\\text ?\{[^{}]*\}(?:\^\{-?[1-3]\}|\^[123])?(?: ?(?:/|\\cdot|-) ?| )?){1,4}"
    rf"|(?:{WORD})(?:(?: | ?/ ?|\*){WORD}){{0,4}})$"
)  # fmt: skip


class Unit(NamedTuple):
    """A unit: its dimension as sorted powers, its size, or, for a noun that is no known unit, neither.

    >>> parse_unit("km/h")
    Unit(name='km/h', dimension=(('length', 1), ('time', -1)), size=Fraction(5, 18))
    """

    name: str
    dimension: tuple[tuple[str, int], ...] | None
    size: Fraction


def split_unit(text: str) -> tuple[str, str | None, bool]:
    r"""The text before a unit, the unit, and True if the unit is a bare letter that may be a variable: 5m.

    >>> split_unit(r"5 \text{ cm}"), split_unit("x + 5")
    (('5', ' cm', False), ('x + 5', None, False))
    """
    match = UNIT.search(text, max(0, len(text) - 160))
    if match is None:
        return text, None, False
    unit = match["unit"]
    name = TEXT.sub(r"\1", unit).replace(r"^{\circ}", "°").replace(r"\cdot", "*")
    if "\\" not in unit and "°" not in unit:
        words = re.findall(r"[A-Za-z]+", unit)
        known = all(
            singular(word) in UNITS or word.lower() in POWERS or word in ("per", "unit", "units") for word in words
        )
        bare = [word for word in words if len(word) < 3]
        if not known and ((bare and bare[0] == words[0]) or len(words) > 3 or not match["space"]):
            return text, None, False
        if len(words) > 1 and re.fullmatch(r"[a-z](?: [a-z])*(?: ?\^\{?[0-9]\}?)?", unit):
            return text, None, False  # a product of variables: m v^2
        if known and len(words) == 1 and (words[0] == "in" or len(words[0]) == 1):
            if words[0] not in SINGLE or numeral(text[: match.start()]) is None:
                return text, None, False
            return text[: match.start()], name, not match["space"]
    elif name.strip() in VARIABLES or re.search(rf"\b(?:{NO_UNIT})\b", name, re.IGNORECASE):
        return text, None, False
    return text[: match.start()].strip(), name, False


@cache
def parse_unit(name: str) -> Unit:
    text = re.sub(r"\s+", " ", name.replace("\\", "").strip()).replace("pounds sterling", "pounds_sterling")
    text = re.sub(r" ?\bper\b ?|(?<=\w) ?/ ?(?=\w)", "/", text)
    dimension: dict[str, int] = {}
    size, sign, pending = Fraction(1), 1, 1
    for token in re.findall(r"/|°[CF]?|[A-Za-z_]+\.?(?:\^?\{?-?[1-3]\}?)?|[^\s*]", text):
        if token == "/":
            sign = -1
            continue
        match = FACTOR.fullmatch(token)
        if match is None:
            return Unit(text.lower(), None, Fraction(1))
        word = match[1].rstrip(".")
        if word.lower() in POWERS:
            pending = POWERS[word.lower()]
            continue
        if word.lower() in ("squared", "cubed"):
            return Unit(text.lower(), None, Fraction(1))
        power = sign * int(match[2] or pending)
        pending = 1
        entries = [(singular(word), 1)]
        if entries[0][0] in SPEEDS:
            length, time = SPEEDS[entries[0][0]].split("/")
            entries = [(length, 1), (time, -1)]
        for unit, exponent in entries:
            if unit not in UNITS or not UNITS[unit][1]:
                return Unit(text.lower(), None, Fraction(1))
            kind, factor = UNITS[unit]
            if kind == "volume":
                kind, factor, exponent = "length", factor / 1000, exponent * 3
                size *= factor ** (power * exponent // 3)
            else:
                size *= factor ** (power * exponent)
            dimension[kind] = dimension.get(kind, 0) + power * exponent
    parts = tuple(sorted((kind, power) for kind, power in dimension.items() if power))
    return Unit(text, parts or None, size)


def singular(word: str) -> str:
    word = word.rstrip(".").lower()
    if word in UNITS:
        return word
    if word.endswith("es") and word[:-2] in UNITS:
        return word[:-2]
    return word[:-1] if word.endswith("s") and word[:-1] in UNITS else word


PART = re.compile(r" ?(?:and |, ?)?([0-9]+(?:\.[0-9]+)?) ?(?:\\text ?\{ ?)?([A-Za-z]+\.?)(?: ?\})?")


DEGREES = re.compile(
    r"([0-9]+(?:\.[0-9]+)?) ?\^\{\\circ\} ?(?:([0-9]+(?:\.[0-9]+)?) ?(?:'|\^\{'\}))?"
    r" ?(?:([0-9]+(?:\.[0-9]+)?) ?(?:''|\"))?"
)
MINUTES = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?'")


def angle(text: str) -> Fraction | None:
    """The degrees of 45° 30', or None."""
    if match := MINUTES.fullmatch(text):
        return Fraction(match[1]) / 60
    if match := DEGREES.fullmatch(text):
        return sum((Fraction(part or 0) / 60**power for power, part in enumerate(match.groups())), Fraction(0))
    return None


def compound(text: str) -> tuple[Fraction, str] | None:
    """The sum of a quantity in several units, in the first unit.

    >>> compound("2 hours and 30 minutes")
    (Fraction(5, 2), 'hours')
    """
    parts, end = [], 0
    while end < len(text) and (match := PART.match(text, end)):
        parts.append((Fraction(match[1]), match[2]))
        end = match.end()
    if end < len(text) or len(parts) < 2:
        return None
    units = [parse_unit(name) for _, name in parts]
    sizes = [unit.size for unit in units]
    if units[0].dimension is None or len({unit.dimension for unit in units}) > 1 or sizes != sorted(set(sizes))[::-1]:
        return None
    return sum((value * size for (value, _), size in zip(parts, sizes, strict=True)), Fraction(0)) / sizes[0], parts[0][
        1
    ]
