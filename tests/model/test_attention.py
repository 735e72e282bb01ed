"""Packed attention against one explicit mask, on a CPU."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlframe.model import attention, attention_cpu
from rlframe.model.attention import Scoring, packed_attention, takes_block_mask
from rlframe.model.layout import Layout
from rlframe.training import PACKED_ATTENTION
from tests.tiny.packed import Packed

# A prompt of 3 tokens with completions of 2, 1 and 4, another sequence of 1, and a prompt of 2 with 1 and 2. Then one
# of 2 that begins like that, with 2 and 2, so that their first token lies in another prompt than their second.
SEQUENCE_IDS = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 3, 4, 4, 4, 5, 5, 6, 6, 6, 7, 7])
POSITION_IDS = torch.tensor([0, 1, 2, 3, 4, 3, 3, 4, 5, 6, 0, 0, 1, 2, 2, 3, 1, 2, 3, 2, 3])
T = len(SEQUENCE_IDS)
LAYOUT = Layout.of(SEQUENCE_IDS, POSITION_IDS)
PLAIN = Scoring(scale=0.1, window=None, softcap=None, sinks=None)
PROMPT, FIRST, SECOND, OTHER = slice(0, 3), slice(3, 5), slice(5, 6), slice(10, 11)


def inputs(heads: int, key_value_heads: int, value_dim: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return (
        torch.randn(1, heads, T, 4),
        torch.randn(1, key_value_heads, T, 4),
        torch.randn(1, key_value_heads, T, value_dim),
    )


def attend(
    query: Tensor, key: Tensor, value: Tensor, scaling: float | None = None, window: int | None = None, **more: Any
):
    layout = Layout.of(SEQUENCE_IDS, POSITION_IDS)  # of its own: calls are planned once for each
    return packed_attention(
        nn.Module(), query, key, value, None, layout=layout, scaling=scaling, sliding_window=window, **more
    )[0]


def masked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float = 0.5,
    window: int = T,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """softmax(q k^T) v where token i sees token j, written out; 0.5 is 1 / sqrt(4). -> [1, T, heads, value_dim]"""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    sees = torch.zeros(T, T, dtype=torch.bool)
    for row in range(T):
        for column in range(row + 1):
            same = SEQUENCE_IDS[row] == SEQUENCE_IDS[column]
            first_prompt = column < 3 and SEQUENCE_IDS[row] in (0, 1, 2)
            second_prompt = column in (11, 12) and SEQUENCE_IDS[row] in (4, 5)
            third_prompt = (column == 11 and SEQUENCE_IDS[row] in (6, 7)) or (column == 16 and SEQUENCE_IDS[row] == 7)
            near = POSITION_IDS[row] - POSITION_IDS[column] < window
            sees[row, column] = (same or first_prompt or second_prompt or third_prompt) and near
    scores = query @ key.mT * scaling
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    weights = scores.exp() * sees
    totals = weights.sum(-1, keepdim=True) + (0 if sinks is None else sinks.exp()[None, :, None, None])
    return (weights / totals @ value).transpose(1, 2)


@pytest.mark.parametrize("cells", [1, 1 << 23])  # a sequence a call, all of a size together
@pytest.mark.parametrize("short", [0, 1, 4, 256])  # tokens with context: none, one sequence, six of eight, all
@pytest.mark.parametrize("rows", [1, 2, 512])  # of queries at a time
@pytest.mark.parametrize("heads, key_value_heads, value_dim", [(2, 2, 4), (4, 2, 4), (3, 1, 4), (2, 2, 3)])
def test_values_and_gradients_are_those_of_the_softmax_under_a_mask(
    heads, key_value_heads, value_dim, rows, short, cells, monkeypatch
):
    monkeypatch.setattr(attention_cpu, "SHORT", short)
    monkeypatch.setattr(attention_cpu, "CELLS", cells)
    monkeypatch.setattr(attention, "ROWS", rows)
    got, wanted = ([part.requires_grad_() for part in inputs(heads, key_value_heads, value_dim)] for _ in range(2))
    weights = torch.randn(1, T, heads, value_dim)
    ours, reference = attend(*got), masked(*wanted)
    torch.testing.assert_close(ours, reference)
    (ours * weights).sum().backward()
    (reference * weights).sum().backward()
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_short_sequences_in_bfloat16_are_rounded_once():
    got = [part.bfloat16().requires_grad_() for part in inputs(heads=4, key_value_heads=2)]
    wanted = [part.detach().float().requires_grad_() for part in got]
    weights = torch.randn(1, T, 4, 4).bfloat16()
    ours, reference = attend(*got), masked(*wanted)
    (ours * weights).sum().backward()
    (reference * weights.float()).sum().backward()
    for one, other in zip(
        [ours, *(part.grad for part in got)], [reference, *(part.grad for part in wanted)], strict=True
    ):
        torch.testing.assert_close(one.float(), other, rtol=1.01 * 2**-8, atol=1e-6)


@pytest.mark.parametrize("rows, short", [(2, 0), (512, 0), (512, 4), (512, 256)])
@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_a_sliding_window_reaches_into_a_shared_prompt(window, rows, short, monkeypatch):
    monkeypatch.setattr(attention_cpu, "SHORT", short)
    monkeypatch.setattr(attention, "ROWS", rows)
    parts = inputs(heads=4, key_value_heads=2)
    torch.testing.assert_close(attend(*parts, window=window), masked(*parts, window=window))


@pytest.mark.parametrize("softcap, has_sinks", [(0.7, False), (None, True), (0.7, True)])
@pytest.mark.parametrize("rows", [2, 512])
def test_caps_and_sinks_are_those_of_the_definition(softcap, has_sinks, rows, monkeypatch):
    monkeypatch.setattr(attention, "ROWS", rows)
    got, wanted = ([*inputs(4, 2), torch.tensor([0.5, -1.0, 2.0, 0.0])] for _ in range(2))
    for part in (*got, *wanted):
        part.requires_grad_()
    ours = attend(*got[:3], window=3, softcap=softcap, s_aux=got[3] if has_sinks else None)
    reference = masked(*wanted[:3], window=3, softcap=softcap, sinks=wanted[3] if has_sinks else None)
    torch.testing.assert_close(ours, reference)
    weights = torch.randn_like(ours)
    (ours * weights).sum().backward()
    (reference * weights).sum().backward()
    for mine, other in zip(got[: 3 + has_sinks], wanted, strict=False):
        torch.testing.assert_close(mine.grad, other.grad)


def test_a_gpu_uses_varlen_for_whole_sequences_in_16_bits_only():
    query, value = torch.empty(1, 4, 7, 64, dtype=torch.bfloat16), torch.empty(1, 2, 7, 64, dtype=torch.bfloat16)
    whole = Packed([5, 2], [0, 0]).layout()
    assert not takes_block_mask(query, value, whole, PLAIN)
    assert takes_block_mask(query, value, Packed([5, 2], [0, 3]).layout(), PLAIN)
    for setting in ({"window": 4}, {"softcap": 30.0}, {"sinks": torch.zeros(4)}):
        assert takes_block_mask(query, value, whole, replace(PLAIN, **setting))
    assert takes_block_mask(query, value[..., :32], whole, PLAIN)
    assert takes_block_mask(query.float(), value.float(), whole, PLAIN)
    for dim, beyond in ((256, False), (264, True), (12, True)):
        wide = torch.empty(1, 4, 7, dim, dtype=torch.bfloat16)
        assert takes_block_mask(wide, wide, whole, PLAIN) == beyond


def test_the_first_token_of_a_whole_sequence_sees_its_own_value_only():
    query, key, value = inputs(heads=2, key_value_heads=2)
    attended = attend(query, key, value)
    for first in (0, 10, 11):
        torch.testing.assert_close(attended[0, first], value[0, :, first])


def test_other_sequences_change_no_bit_of_a_sequence():
    query, key, value = inputs(heads=4, key_value_heads=2)
    before = attend(query, key, value)
    for part in (query, key, value):
        part[:, :, SECOND] = 1e3
        part[:, :, OTHER] = 1e3
    changed = (attend(query, key, value) != before).any(-1).any(-1)[0]
    assert changed.nonzero()[:, 0].tolist() == [5, 10]


def test_a_completion_s_gradient_reaches_no_other_completion():
    query, key, value = (part.requires_grad_() for part in inputs(heads=4, key_value_heads=2))
    attend(query, key, value)[0, SECOND].sum().backward()
    assert value.grad is not None
    reached = value.grad.abs().sum((0, 1, 3)) > 0
    assert reached.nonzero()[:, 0].tolist() == [0, 1, 2, 5]


def test_a_whole_sequence_implementation_refuses_a_shared_prompt():
    whole = Layout.of(torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 2, 0, 1]))
    given = attention.arguments(whole, "whole", "flash_attention_2")
    assert given["cu_seq_lens_q"].tolist() == [0, 3, 5] and given["max_length_k"] == 3
    assert given["seq_idx"].tolist() == [[0, 0, 0, 1, 1]]
    for packing, implementation in (("whole", PACKED_ATTENTION), ("shared", "flash_attention_2")):
        with pytest.raises(ValueError, match=f"{packing} packing takes whole sequences only"):
            attention.arguments(LAYOUT, packing, implementation)


def test_a_model_that_adds_a_bias_by_position_is_refused():
    with pytest.raises(ValueError, match="knows no position_bias, which Module needs"):
        packed_attention(nn.Module(), *inputs(2, 2), None, layout=LAYOUT, position_bias=torch.zeros(T, T))
