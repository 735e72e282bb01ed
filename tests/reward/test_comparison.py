"""Equality of values and of printed texts."""

from typing import Any

import pytest

from rlframe.reward.comparison import equal


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
