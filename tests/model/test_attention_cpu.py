"""Which sequences share a call of attention; what it computes is tested with the attention."""

from __future__ import annotations

import pytest
import torch

from rlframe.model import attention_cpu as grid
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


def grids(plan: grid.Plan) -> list[grid.Grid]:
    return [one for together in plan.rounds for one in together.grids]


def test_8_groups_of_8_are_two_calls_of_whole_sequences_and_of_completions() -> None:
    layout = laid_out(*[[68, *[24] * 8]] * 8)
    plan = grid.plan(layout, None, 1)
    whole, completions = grids(plan)
    assert (whole.queries.shape, whole.keys.shape) == ((8, 1, 92), (8, 1, 92))
    assert (completions.queries.shape, completions.keys.shape) == ((56, 1, 24), (56, 1, 68 + 24))
    second_group = 92 + 7 * 24  # where its first sequence begins
    assert completions.keys[7, 0].tolist() == [*range(second_group, second_group + 68), *range(352, 376)]
    assert completions.queries[7, 0].tolist() == list(range(352, 376))
    assert plan.alone == []


def test_sizes_in_a_call_differ_by_less_than_two_from_16_tokens_on_and_long_sequences_have_their_own() -> None:
    # Completions of 1, 15, 16, 31, 32 and 300 tokens behind 10; the first, whole, has 12.
    layout = laid_out([10, 2, 1, 15, 16, 31, 32, 300])
    plan = grid.plan(layout, None, 1)
    assert [tuple(one.queries.shape) for one in grids(plan)] == [(1, 1, 12), (2, 1, 15), (2, 1, 31), (1, 1, 32)]
    assert [int(one.real.sum()) for one in grids(plan)] == [12, 16, 47, 32]
    assert plan.alone == [6] and layout.lengths[6] == 300


def test_prompts_longer_than_256_tokens_are_padded_for_no_other_group() -> None:
    plan = grid.plan(laid_out([300, 2, 2], [400, 2, 2], [100, 2, 2], [90, 2, 2]), None, 1)
    continuing = [tuple(one.keys.shape) for one in grids(plan) if one.queries.shape[2] == 2]
    assert continuing == [(1, 1, 302), (1, 1, 402), (2, 1, 102)]


@pytest.mark.parametrize("cells, calls", [(1 << 18, 1), (6 * 24 * 92, 7), (1, 42)])
def test_a_call_s_scores_are_bounded(cells: int, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grid, "CELLS", cells)
    plan = grid.plan(laid_out(*[[68, *[24] * 8]] * 6), None, 1)
    masks = [one.hidden for one in grids(plan) if one.keys.shape != one.queries.shape]
    assert len(masks) == calls and sum(len(mask) for mask in masks) == 42
    assert max(mask.numel() for mask in masks) <= max(cells, 24 * 92)


def test_rows_of_keys_held_at_once_are_8_times_a_batch_s_where_a_long_prompt_is_copied_39_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(grid, "CELLS", 5 * 2 * 102)  # five completions of 2 behind 100
    layout = laid_out([100, *[2] * 40])  # 180 tokens
    held = [[one.keys.numel() for one in together.grids] for together in grid.plan(layout, None, 1).rounds]
    assert held == [[102, 510, 510], [510, 510], [510, 510], [510, 408]]


def test_each_key_s_head_of_a_token_has_a_place_of_its_own() -> None:
    [one] = grids(grid.plan(laid_out([1, 2]), None, 2))
    assert one.queries.tolist() == one.keys.tolist() == [[[0, 2, 4], [1, 3, 5]]]


@pytest.mark.parametrize("prompt, kept", [(510, 2 * 512), (511, 0)])
def test_weights_over_more_than_512_keys_are_computed_again_in_the_backward_pass(prompt: int, kept: int) -> None:
    layout = laid_out([prompt, 2, 2])
    saved: list[int] = []

    def save(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.numel())
        return tensor

    parts = [torch.randn(prompt + 4, 1, 4, requires_grad=True) for _ in range(3)]
    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        grid.attend(grid.plan(layout, None, 1), *parts, None)
    assert sum(saved) == 3 * parts[0].numel() + kept
