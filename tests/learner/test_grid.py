"""Which sequences share a call of attention; what it computes is tested with the attention."""

from __future__ import annotations

import pytest
import torch

from rlframe.learner import grid
from rlframe.learner.layout import Layout


def laid_out(*families: list[int]) -> Layout:
    """Of each a prompt's length, then the own tokens of its completions: the first holds the prompt too."""
    sequence_ids, position_ids = [], []
    for prompt, *completions in families:
        for at, own in enumerate(completions):
            begin = prompt if at else 0
            position_ids.append(torch.arange(begin, prompt + own))
            sequence_ids.append(torch.full_like(position_ids[-1], len(sequence_ids)))
    return Layout.of(torch.cat(sequence_ids), torch.cat(position_ids))


def test_8_groups_of_8_are_two_calls_of_whole_sequences_and_of_completions() -> None:
    plan = grid.plan(laid_out(*[[68, *[24] * 8]] * 8), None)
    whole, completions = plan.grids
    assert (whole.tokens.shape, whole.prompts, whole.seen) == ((8, 92), None, None)
    assert completions.tokens.shape == (56, 24)
    assert completions.prompts is not None and completions.prompts.shape == (8, 68)
    assert completions.family.tolist() == [family for family in range(8) for _ in range(7)]
    assert plan.alone == [] and len(plan.order) == 8 * (68 + 8 * 24)


def test_sizes_in_a_call_differ_by_less_than_two_and_long_sequences_have_their_own() -> None:
    # Completions of 1, 2 and 3, 5, and 300 tokens behind 10; the first, whole, has 12.
    layout = laid_out([10, 2, 1, 2, 3, 5, 300])
    plan = grid.plan(layout, None)
    assert [tuple(one.tokens.shape) for one in plan.grids] == [(1, 12), (1, 1), (2, 3), (1, 5)]
    assert plan.alone == [5] and layout.lengths[5] == 300


def test_prompts_longer_than_256_tokens_are_padded_for_no_other_group() -> None:
    plan = grid.plan(laid_out([300, 2, 2], [400, 2, 2], [100, 2, 2], [90, 2, 2]), None)
    assert [tuple(one.prompts.shape) for one in plan.grids if one.prompts is not None] == [(1, 300), (1, 400), (2, 100)]


@pytest.mark.parametrize("cells, calls", [(1 << 23, 1), (6 * 24 * 92, 7), (1, 42)])
def test_a_call_s_mask_is_bounded(cells: int, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "CELLS", cells)
    masks = [one.seen for one in grid.plan(laid_out(*[[68, *[24] * 8]] * 6), None).grids if one.seen is not None]
    assert len(masks) == calls and sum(len(mask) for mask in masks) == 42
    assert max(mask.numel() for mask in masks) <= max(cells, 24 * 92)
