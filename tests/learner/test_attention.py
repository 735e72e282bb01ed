"""Packed attention against one explicit mask, on a CPU."""

import pytest
import torch
from torch import Tensor, nn

from rlframe.learner.attention import boundaries, packed_attention

LENGTHS = [3, 1, 5]
SEQUENCE_IDS = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, 2])


def inputs(heads: int, key_value_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return (
        torch.randn(1, heads, 9, 4),
        torch.randn(1, key_value_heads, 9, 4),
        torch.randn(1, key_value_heads, 9, 4),
    )


def attend(query: Tensor, key: Tensor, value: Tensor, scaling: float | None = None) -> Tensor:
    return packed_attention(
        nn.Module(), query, key, value, None, cu_seq_lens_q=boundaries(SEQUENCE_IDS), scaling=scaling
    )[0]


def masked(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """softmax(q k^T) v where token i sees token j: the same sequence, and not later. [1, heads, T, d] -> [1, T, ...]"""
    shared = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    at = torch.arange(9)
    sees = (SEQUENCE_IDS[:, None] == SEQUENCE_IDS[None]) & (at[:, None] >= at[None])
    scores = (query @ key.mT * scaling).masked_fill(~sees, float("-inf"))
    return (scores.softmax(-1) @ value).transpose(1, 2)


def test_sequences_of_3_and_2_tokens_lie_between_0_3_and_5():
    assert boundaries(torch.tensor([0, 0, 0, 1, 1])).tolist() == [0, 3, 5]
    assert boundaries(torch.tensor([0, 1, 1, 2])).tolist() == [0, 1, 3, 4]
    assert boundaries(torch.tensor([7])).tolist() == [0, 1]


@pytest.mark.parametrize("heads, key_value_heads", [(2, 2), (4, 2), (3, 1)])
def test_packed_attention_is_the_softmax_under_a_block_causal_mask(heads, key_value_heads):
    query, key, value = inputs(heads, key_value_heads)
    torch.testing.assert_close(attend(query, key, value), masked(query, key, value, scaling=0.5))  # 1 / sqrt(4)
    torch.testing.assert_close(attend(query, key, value, scaling=0.1), masked(query, key, value, scaling=0.1))


def test_the_first_token_of_a_sequence_sees_its_own_value_only():
    query, key, value = inputs(heads=2, key_value_heads=2)
    attended = attend(query, key, value)
    for first in (0, 3, 4):
        torch.testing.assert_close(attended[0, first], value[0, :, first])


def test_another_sequence_could_hold_anything_and_not_one_bit_would_change():
    query, key, value = inputs(heads=4, key_value_heads=2)
    before = attend(query, key, value)
    middle = SEQUENCE_IDS == 1
    for part in (query, key, value):
        part[:, :, middle] = 1e3
    after = attend(query, key, value)
    assert torch.equal(before[:, ~middle], after[:, ~middle])
    assert not torch.equal(before[:, middle], after[:, middle])


def test_gradients_stay_within_their_sequence():
    query, key, value = (part.requires_grad_() for part in inputs(heads=4, key_value_heads=2))
    attend(query, key, value)[0, :3].sum().backward()  # the first sequence's outputs
    assert value.grad is not None
    assert value.grad[:, :, :3].abs().sum() > 0
    assert value.grad[:, :, 3:].abs().sum() == 0
