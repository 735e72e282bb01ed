"""Values as lines of JSON: what a program returns arrives as the same value of exact builtin types."""

import enum
import itertools
import json
import math
import random
import time
from collections import Counter, OrderedDict, defaultdict, namedtuple
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from rlframe.sandbox.values import decode, encode

Point = namedtuple("Point", "x y")


class Colour(enum.IntEnum):
    RED = 1


class Equal(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -7, 1.5, "", "é\n\"\ud800", [], [1, [2, "a"]], {}, {"a": [1]}, {"$tuple": [1]}, {"$": 1},
        (), (1,), ((1, 2), [3]), {1, 2}, frozenset({(1, 2)}), {1: {2: 3}}, {(1, 2): "a", None: 1.0}, b"\x00ab",
        1j, complex(1, -2), math.inf, -math.inf, Fraction(1, 3), Decimal("0.10"), range(5), range(9, 0, -3),
        2**20000, -(3**9000), 10**400, {"a": 1, "$b": 2}, [{"$set": ["x"]}],
    ],
    ids=itertools.count(),
)  # fmt: skip
def test_a_value_comes_back_equal_and_of_the_same_type(value: Any):
    text = encode(value)
    back = decode(text)
    assert (back, type(back)) == (value, type(value))
    assert "\n" not in text


def test_json_values_stand_for_themselves():
    value = {"a": [1, 2.5, "x", None, True], "b": {"c": []}}
    assert json.loads(encode(value)) == value


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Point(1, 2), (1, 2)), (Counter("aab"), {"a": 2, "b": 1}), (OrderedDict(a=1), {"a": 1}), (Equal(3), 3),
        (defaultdict(list, {1: [2]}), {1: [2]}), (Colour.RED, 1), (bytearray(b"a"), b"a"), (np.int64(3), 3),
        (np.float64(0.5), 0.5), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.array([[1, 2]]), [[1, 2]]),
        (np.complex64(1j), 1j),
    ],
)  # fmt: skip
def test_a_subclass_becomes_its_builtin_base(value: Any, plain: Any):
    back = decode(encode(value))
    assert type(back) is type(plain)
    assert plain == back


def test_not_a_number_comes_back():
    assert math.isnan(decode(encode(math.nan)))


def test_random_values_come_back():
    def value(depth: int) -> Any:
        kinds = [int, str, float, tuple, list, dict, set] if depth else [int, str, float]
        kind, sizes = random.choice(kinds), range(random.randrange(4))
        if kind in (int, float):
            return kind(random.randrange(-99, 99))
        if kind is str:
            return random.choice(["", "$", "$dict", "a"])
        if kind is dict:
            return {hashable(): value(depth - 1) for _ in sizes}
        return kind(hashable() if kind is set else value(depth - 1) for _ in sizes)

    def hashable() -> Any:
        return random.choice([1, "$set", "b", (1, ("$", 2)), None])

    random.seed(0)
    for _ in range(500):
        tree = value(4)
        assert repr(decode(encode(tree))) == repr(tree) or decode(encode(tree)) == tree


@pytest.mark.parametrize("value", [object(), len, iter([]), lambda: 0, Point, [object()], {1: object()}])
def test_an_object_that_is_no_value_is_refused(value: Any):
    with pytest.raises(TypeError, match="is no value"):
        encode(value)


def test_an_object_that_is_no_value_has_a_text_of_its_own():
    text = encode([object()], other=lambda value: {"$handle": 7})
    assert decode(text, other=lambda entries: entries["$handle"]) == [7]


@pytest.mark.parametrize(
    "text",
    [
        "", "nan", "NaN", "Infinity", "[1", "1 2", '{"$unknown": 1}', '{"$tuple": 1}', '{"$tuple": {"a": 1}}',
        '{"$tuple": "ab"}', '{"$set": [[]]}', '{"$dict": [1]}', '{"$dict": [[1, 2, 3]]}', '{"$bytes": "xy"}',
        '{"$bytes": 3}', '{"$complex": ["a", 1]}', '{"$float": []}', '{"$fraction": [1, 0]}', '{"$decimal": "x"}',
        '{"$range": [1.5]}', '{"$int": 7}', "[" * 100_000, "1" * 5000,
    ],
)  # fmt: skip
def test_any_other_text_is_refused(text: str):
    with pytest.raises(ValueError):
        decode(text)


@pytest.mark.parametrize("key", ["$set", "$dict"])
def test_keys_with_equal_hashes_cost_no_time(key: str):
    numbers = [number * (2**61 - 1) for number in range(50_000)]  # hash 0
    text = json.dumps({key: numbers if key == "$set" else [[number, 0] for number in numbers]})
    start = time.process_time()
    with pytest.raises(ValueError, match="equal hashes"):
        decode(text)
    assert time.process_time() - start < 5  # 0.1 on a quiet core; a set of them takes 30
