"""Python values as a line of JSON: `encode` for the untrusted side, `decode` for the trusted side.

JSON values stand for themselves. Any other value is an object with a single key that starts with `$`:

| value | text |
|---|---|
| `[1, "a", None]` | `[1, "a", null]` |
| `(1, 2)` | `{"$tuple": [1, 2]}` |
| `{3, 4}`, `frozenset([3])` | `{"$set": [3, 4]}`, `{"$frozenset": [3]}` |
| `{1: 2}`, `{"$a": 2}` | `{"$dict": [[1, 2]]}`, `{"$dict": [["$a", 2]]}` |
| `b"ab"`, `1j`, `nan` | `{"$bytes": "6162"}`, `{"$complex": [0.0, 1.0]}`, `{"$float": "nan"}` |
| `Fraction(1, 2)`, `Decimal("0.5")` | `{"$fraction": [1, 2]}`, `{"$decimal": "0.5"}` |
| `range(3)`, `2**20000` | `{"$range": [0, 3, 1]}`, `{"$int": "0x100…"}` |

An instance of a subclass becomes a value of its builtin base: a named tuple a tuple, a Counter a dict. Scalars and
arrays of numpy become numbers and lists. A decoded value consists of exact builtin types, so a program's own `__eq__`
never takes part in a comparison. The fork server imports this module before it gives up its files, and the modules
used here later.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import json
    from collections.abc import Callable
    from typing import Any

MAX_BITS = 14_000  # of an int in decimal digits, whose number Python bounds
MAX_EQUAL_HASHES = 64  # keys of a dict or set: more would make its construction quadratic, and no honest value has more
# Of a line: as a value, `[[],[],…]` takes 44 times its length, and a text with a wide character 7 times. With these
# bounds no line takes 80 MB.
MAX_BYTES, MAX_CONTAINERS, MAX_ITEMS = 10_000_000, 250_000, 1_000_000
PROGRAM = "solution"  # the module whose classes a program defines
SCALARS = frozenset((str, bool, type(None)))
encoders: "list[json.JSONEncoder]" = []


def encode(value: "Any", other: "Callable[[Any], dict[str, Any]] | None" = None) -> str:
    """The value as a line of JSON. `other` describes an object that is no value, as an object with a key of its own;
    without `other`, raises TypeError. Also raises RecursionError for a value that contains itself.

    With `other`, containers of classes that the program itself defined are objects: their methods count.
    """
    return _encoder().encode(_jsonable(value, other or _refuse))


def decode(text: str | bytes, other: "Callable[[dict[str, Any]], Any] | None" = None) -> "Any":
    """The value in a line that `encode` wrote, or that a program forged. Raises ValueError for any other text.

    `other` makes a value from an object that the `other` of `encode` described.
    """

    import json

    def value_of(entries: "dict[str, Any]") -> "Any":
        if len(entries) != 1:
            return entries
        [(key, content)] = entries.items()
        if not key.startswith("$"):
            return entries
        if key in DECODERS:
            return DECODERS[key](content)
        if other is None:
            raise ValueError(f"{key} is no kind of value")
        return other(entries)

    line = text if isinstance(text, str) else text.decode("ascii")  # other characters are escaped
    if len(line) > MAX_BYTES or line.count("[") + line.count("{") > MAX_CONTAINERS or line.count(",") > MAX_ITEMS:
        raise ValueError(
            f"it has more than {MAX_BYTES:,} bytes, {MAX_CONTAINERS:,} lists and dicts, or {MAX_ITEMS:,} items"
        )
    try:
        return json.loads(line, object_hook=value_of, parse_constant=_refuse_constant)
    except ValueError:
        raise
    except (TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _encoder() -> "json.JSONEncoder":
    """Made once: to make an encoder takes longer than to encode a short value."""
    if not encoders:
        import json

        encoders.append(json.JSONEncoder(allow_nan=False))
    return encoders[0]


def _jsonable(value: "Any", other: "Callable[[Any], dict[str, Any]]") -> "Any":
    """The value as lists, dicts with text keys, texts, numbers, booleans and None."""
    kind = type(value)
    if kind in SCALARS:
        return value
    if isinstance(value, int):
        number = int(value)
        return number if number.bit_length() < MAX_BITS else {"$int": hex(number)}
    if isinstance(value, float):
        number = float(value)
        return number if number - number == 0 else {"$float": repr(number)}
    if isinstance(value, str):
        return str.__str__(value)
    if kind.__module__ == PROGRAM and other is not _refuse:
        return other(value)
    if isinstance(value, list):
        return [_jsonable(item, other) for item in value]
    if isinstance(value, tuple):
        return {"$tuple": [_jsonable(item, other) for item in value]}
    if isinstance(value, dict):
        if all(type(key) is str for key in value) and not (len(value) == 1 and next(iter(value)).startswith("$")):
            return {key: _jsonable(item, other) for key, item in value.items()}
        return {"$dict": [[_jsonable(key, other), _jsonable(item, other)] for key, item in value.items()]}
    if isinstance(value, set | frozenset):
        name = "$set" if isinstance(value, set) else "$frozenset"
        return {name: [_jsonable(item, other) for item in value]}
    if isinstance(value, bytes | bytearray):
        return {"$bytes": value.hex()}
    if kind is range:
        return {"$range": [_jsonable(number, other) for number in (value.start, value.stop, value.step)]}
    return _number(value, other)


def _number(value: "Any", other: "Callable[[Any], dict[str, Any]]") -> "Any":
    """A number of the standard library or of a package, or an array of numbers."""
    import numbers

    if isinstance(value, numbers.Integral):
        return _jsonable(int(value), other)
    if isinstance(value, numbers.Rational):
        return {"$fraction": [_jsonable(int(number), other) for number in (value.numerator, value.denominator)]}
    if isinstance(value, numbers.Real):
        return _jsonable(float(value), other)
    if isinstance(value, numbers.Complex):
        number = complex(value)
        return {"$complex": [_jsonable(part, other) for part in (number.real, number.imag)]}
    if (decimal := sys.modules.get("decimal")) and isinstance(value, decimal.Decimal):
        return {"$decimal": decimal.Decimal.__str__(value)}
    if hasattr(type(value), "tolist"):  # numpy's booleans and arrays, and Python's own arrays
        return _jsonable(value.tolist(), other)
    return other(value)


def _refuse(value: "Any") -> "dict[str, Any]":
    raise TypeError(f"{type(value).__name__} is no value that can be compared")


def _refuse_constant(name: str) -> "Any":
    raise ValueError(f"{name} is no JSON")


def _keys(keys: "list[Any]") -> "list[Any]":
    """The keys of a dict or set, checked. Raises ValueError for keys that were chosen to have equal hashes."""
    counts: dict[int, int] = {}
    for key in keys:
        number = hash(key)
        counts[number] = counts.get(number, 0) + 1
        if counts[number] > MAX_EQUAL_HASHES:
            raise ValueError("too many keys have equal hashes")
    return keys


def _set(items: "list[Any]") -> "set[Any]":
    return set(_keys(_list(items)))


def _dict(pairs: "list[Any]") -> "dict[Any, Any]":
    _keys([key for key, _ in _list(pairs)])
    return {key: item for key, item in pairs}


def _list(content: "Any") -> "list[Any]":
    if type(content) is not list:
        raise ValueError(f"a list is missing, there is {type(content).__name__}")
    return content


def _fraction(content: "Any") -> "Any":
    from fractions import Fraction

    numerator, denominator = content
    return Fraction(numerator, denominator)


def _decimal(content: str) -> "Any":
    from decimal import Decimal

    return Decimal(content)


DECODERS: "dict[str, Callable[[Any], Any]]" = {
    "$tuple": lambda content: tuple(_list(content)),
    "$set": _set,
    "$frozenset": lambda content: frozenset(_set(content)),
    "$dict": _dict,
    "$bytes": lambda content: bytes.fromhex(content),
    "$complex": lambda content: complex(*content),
    "$float": lambda content: float(content),
    "$fraction": _fraction,
    "$decimal": _decimal,
    "$range": lambda content: range(*content),
    "$int": lambda content: int(content, 16),
}
