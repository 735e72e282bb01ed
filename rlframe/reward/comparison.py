"""Comparison of a program's values and texts with the expected ones, on the trusted side.

Decoded values have exact builtin types, so every comparison below is Python's own.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import Any, Literal, TypeAlias

Numbers: TypeAlias = Literal["exact", "equal"]  # exact: 1 is neither 1.0 nor True; equal: as Python's ==
Stdout: TypeAlias = Literal["lines", "tokens"]  # tokens: every run of white space separates two tokens
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
TOKEN = re.compile(r"\S+")
MAX_NUMBER_CHARS = 400  # of a printed number that is compared by its value
NUMERIC: tuple[type[Any], ...] = (int, float, complex)
JSON_SCALARS = (str, bool, int, float, type(None))


def equal(value: Any, expected: Any, tolerance: float = 0.0, numbers: Numbers = "exact") -> bool:
    """True for equal values at any depth. Numbers follow `numbers`, containers always have equal types.

    Floats may differ by `tolerance * max(1, |expected|)`. Raises RecursionError for values that are nested too deeply.

    >>> equal([1, 2.0], [1, 2]), equal([1, 2.0], [1, 2], numbers="equal"), equal((1,), [1], numbers="equal")
    (False, True, False)
    """
    if isinstance(expected, NUMERIC) and isinstance(value, NUMERIC):
        if numbers == "exact" and type(value) is not type(expected):
            return False
        return value == expected or (tolerance > 0 and _near(value, expected, tolerance))
    if type(value) is not type(expected):
        # Fractions and decimals, sets and frozen sets
        return numbers == "equal" and not isinstance(value, str | list | tuple | dict) and value == expected
    if isinstance(value, list | tuple):
        return len(value) == len(expected) and all(
            equal(item, expected_item, tolerance, numbers) for item, expected_item in zip(value, expected, strict=True)
        )
    if isinstance(value, dict):
        keys = {key: key for key in expected}
        return value.keys() == keys.keys() and all(
            equal(key, keys[key], 0.0, numbers) and equal(item, expected[key], tolerance, numbers)
            for key, item in value.items()
        )
    if isinstance(value, set | frozenset):
        return _same_sets(value, expected, tolerance, numbers)
    return value == expected


def as_json(value: Any) -> Any:
    """The value that JSON would keep of a program's value: tuples become lists, keys become texts.

    Raises ValueError for a value that JSON does not have. The reader of a JSON reference could not write it.
    """
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    if isinstance(value, dict):
        return {_json_key(key): as_json(item) for key, item in value.items()}
    if (isinstance(value, float) and value - value != 0) or not isinstance(value, JSON_SCALARS):
        raise ValueError(f"JSON has no {type(value).__name__} {value!r:.100}")
    return value


def same_text(text: str, expected: str, by: Stdout = "lines", tolerance: float = 0.0) -> bool:
    """True for the same lines, without white space at line ends and at the text's end, or for the same tokens.

    With a tolerance, numbers are compared by their values, and white space inside lines does not count.
    """
    text, expected = text.rstrip(), expected.rstrip()
    if text == expected:
        return True
    if by == "tokens":
        return _same_tokens(text, expected, tolerance)
    if text.count("\n") != expected.count("\n"):  # before a list of a megabyte's lines takes a hundred
        return False
    pairs = zip(text.split("\n"), expected.split("\n"), strict=True)
    if tolerance:
        return all(_same_tokens(line, expected_line, tolerance) for line, expected_line in pairs)
    return all(line.rstrip() == expected_line.rstrip() for line, expected_line in pairs)


def _same_tokens(text: str, expected: str, tolerance: float) -> bool:
    tokens = zip_longest(TOKEN.finditer(text), TOKEN.finditer(expected))
    return all(one and other and same_token(one[0], other[0], tolerance) for one, other in tokens)


def same_token(token: str, expected: str, tolerance: float) -> bool:
    """True for equal tokens. With a tolerance, also for `tokens` that differ in numbers by that much at most.

    >>> same_token("(0.3333,", "(0.33333333,", 1e-3), same_token("x1.0", "x2.0", 1e-3)
    (True, False)
    """
    if token == expected or not tolerance:
        return token == expected
    if NUMBER.sub("#", token) != NUMBER.sub("#", expected):
        return False
    pairs = zip(NUMBER.findall(token), NUMBER.findall(expected), strict=True)
    return all(one == other or _near_numbers(one, other, tolerance) for one, other in pairs)


def _near_numbers(number: str, expected: str, tolerance: float) -> bool:
    if max(len(number), len(expected)) > MAX_NUMBER_CHARS:
        return False
    # Two whole numbers are exact: a count of 1000001 is not 1000000.
    whole = number.lstrip("+-").isdigit() and expected.lstrip("+-").isdigit()
    return int(number) == int(expected) if whole else _near(float(number), float(expected), tolerance)


def _near(value: complex, expected: complex, tolerance: float) -> bool:
    """True within the tolerance: absolute near zero, relative beyond 1. Two ints are compared exactly."""
    if isinstance(value, int) and isinstance(expected, int):
        return value == expected
    try:
        return abs(value - expected) <= tolerance * max(1.0, abs(expected)) < float("inf")
    except OverflowError:  # an int beyond the range of floats
        return False


def _same_sets(value: Any, expected: Any, tolerance: float, numbers: Numbers) -> bool:
    if len(value) != len(expected):
        return False
    if value == expected:
        items = {item: item for item in expected}
        return all(equal(item, items[item], 0.0, numbers) for item in value)
    try:
        pairs = zip(sorted(value), sorted(expected), strict=True)
    except TypeError:  # items without an order have no tolerance
        return False
    return tolerance > 0 and all(equal(item, other, tolerance, numbers) for item, other in pairs)


def _json_key(key: Any) -> str:
    """The text that JSON writes for a dict's key."""
    if isinstance(key, str):
        return key
    if isinstance(key, bool) or key is None:
        return {True: "true", False: "false", None: "null"}[key]
    if isinstance(key, int) or (isinstance(key, float) and key - key == 0):
        return repr(key)
    raise ValueError(f"JSON has no key of type {type(key).__name__}")
