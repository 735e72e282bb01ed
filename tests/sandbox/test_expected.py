"""Tests of a program: parsing, and equality of outputs."""

import json
from typing import Any

import pytest

from rlframe.sandbox.comparison import equal
from rlframe.sandbox.expected import ProgramTests

ADD = {"function": "add", "cases": [{"args": [1, 2], "returns": 3}, {"args": [40, 2], "returns": 42}]}


@pytest.mark.parametrize(
    ("value", "expected", "same"),
    [
        (1, 1, True), (1, 1.0, False), (1, True, False), (0, False, False), (None, None, True), ("1", 1, False),
        ([1, 2], [1, 2], True), ([1, 2], [2, 1], False), ([1], [1, 1], False), ([[1], []], [[1], []], True),
        ({"a": [1]}, {"a": [1]}, True), ({"a": 1}, {"a": 1.0}, False), ({"a": 1}, {}, False),
        (0.1 + 0.2, 0.3, False), ("é", "é", True), ([], {}, False),
    ],
)  # fmt: skip
def test_values_of_different_types_are_never_equal(value: Any, expected: Any, same: bool):
    assert equal(value, expected, 0.0) is same


def test_parsing_keeps_function_and_cases():
    tests = ProgramTests.parse(json.dumps(ADD))
    assert (tests.function, [case.returns for case in tests.cases]) == ("add", [3, 42])
