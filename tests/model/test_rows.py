"""Sequences as padded rows."""

import pytest
import torch

from rlframe.model.layout import Layout
from rlframe.model.rows import Rows

# "a b c", "d" and "e f"
LAYOUT = Layout.of(torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 1, 2, 0, 0, 1]))


def test_rows_are_padded_on_the_right():
    rows = Rows.of(LAYOUT)
    assert rows.fill(torch.tensor([1, 2, 3, 4, 5, 6]), -1).tolist() == [[1, 2, 3], [4, -1, -1], [5, 6, -1]]


def test_flattened_rows_are_the_sequences_again():
    values = torch.randn(6, 2)
    rows = Rows.of(LAYOUT)
    assert torch.equal(rows.flatten(rows.fill(values, 0)), values)


def test_a_sequence_that_continues_another_has_no_row():
    shared = Layout.of(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
    with pytest.raises(ValueError, match="this batch shares prefixes"):
        Rows.of(shared)
