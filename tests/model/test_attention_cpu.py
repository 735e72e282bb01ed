"""Grids of sequences that share a call of attention; test_attention.py tests the values."""

from __future__ import annotations

import pytest
import torch

from rlframe.model import attention_cpu
from rlframe.model.layout import Layout


def laid_out(*families: list[int]) -> Layout:
    """Of each a prompt's length, then the own tokens of its completions: the first holds the prompt too."""
    sequence_ids, position_ids = [], []
    for prompt, *completions in families:
        for at, own in enumerate(completions):
            begin = prompt if at else 0
            position_ids.append(torch.arange(begin, prompt + own))
            sequence_ids.append(torch.full_like(position_ids[-1], len(sequence_ids)))
    return Layout.of(torch.cat(sequence_ids), torch.cat(position_ids))


def test_8_groups_of_8_are_a_grid_of_prompts_and_a_grid_of_completions() -> None:
    layout = laid_out(*[[68, *[24] * 8]] * 8)
    (whole, completions), long_sequences = attention_cpu.plan(layout, None, 1)
    assert (whole.queries.shape, whole.keys.shape) == ((8, 1, 92), (8, 1, 92))
    assert (completions.queries.shape, completions.keys.shape) == ((56, 1, 24), (56, 1, 68 + 24))
    second_group = 92 + 7 * 24  # where its first sequence begins
    assert completions.keys[7, 0].tolist() == [*range(second_group, second_group + 68), *range(352, 376)]
    assert completions.queries[7, 0].tolist() == list(range(352, 376))
    assert long_sequences == []


def test_a_grid_s_sizes_differ_by_less_than_two_from_16_tokens_on() -> None:
    # Completions of 1, 15, 16, 31, 32 and 375 tokens behind 10; the first, whole, has 12.
    layout = laid_out([10, 2, 1, 15, 16, 31, 32, 375])
    grids, long_sequences = attention_cpu.plan(layout, None, 1)
    assert [tuple(one.queries.shape) for one in grids] == [(1, 1, 12), (2, 1, 15), (2, 1, 31), (1, 1, 32)]
    padding = sum(layout.lengths)
    assert [int((one.queries != padding).sum()) for one in grids] == [12, 16, 47, 32]
    assert long_sequences == [6] and layout.lengths[6] == 375


def test_a_sequence_with_its_prompt_is_short_up_to_384_tokens() -> None:
    grids, long_sequences = attention_cpu.plan(laid_out([382, 2, 2, 3], [100, 2, 2], [90, 2, 2]), None, 1)
    assert long_sequences == [2]
    continuing = [tuple(one.keys.shape) for one in grids if one.queries.shape[2] == 2]
    assert continuing == [(1, 1, 384), (2, 1, 102)]


def test_the_example_of_two_completions_of_one_prompt() -> None:
    _, grid = attention_cpu.plan(laid_out([3, 2, 2, 1]), None, 1)[0]
    assert grid.queries.tolist() == [[[5, 6]], [[7, 8]]]
    assert grid.keys.tolist() == [[[0, 1, 2, 5, 6]], [[0, 1, 2, 7, 8]]]
    hidden = [[False, False, False, False, True], [False] * 5]
    assert grid.mask.isinf()[:, 0, :, 0].tolist() == [hidden, hidden]


@pytest.mark.parametrize("cells, calls", [(1 << 18, 1), (6 * 24 * 92, 7), (1, 42)])
def test_a_call_s_scores_are_bounded(cells: int, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_cpu, "CELLS", cells)
    grids, _ = attention_cpu.plan(laid_out(*[[68, *[24] * 8]] * 6), None, 1)
    masks = [one.mask for one in grids if one.keys.shape != one.queries.shape]
    assert len(masks) == calls and sum(len(mask) for mask in masks) == 42
    assert max(mask.numel() for mask in masks) <= max(cells, 24 * 92)


def test_each_key_head_of_a_token_has_a_row() -> None:
    [grid], _ = attention_cpu.plan(laid_out([1, 2]), None, 2)
    assert grid.queries.tolist() == grid.keys.tolist() == [[[0, 2, 4], [1, 3, 5]]]
