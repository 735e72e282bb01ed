"""Whole sequences through PyTorch's varlen attention, with the kernel of GPUs replaced by its definition on a CPU.

This tests what we hand to the kernel and what PyTorch's own operator makes of it, forward and backward. Only a GPU can
show the kernel itself: `benchmarks/gpu_check.py` compares it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from rlframe.model.attention import Scoring, by_boundaries
from tests.tiny import packed
from tests.tiny.packed import WHOLE, Packed


def flash_forward(query: Tensor, key: Tensor, value: Tensor, *settings: Any, **more: Any) -> tuple[Tensor, ...]:
    """Stands for `aten::_flash_attention_forward` of [T, heads, dim] on a CPU."""
    output = torch.empty_like(query)
    for rows, (queries, keys, values) in sequences(query, key, value, *settings, **more):
        output[rows] = (weights(queries, keys, more.get("scale")) @ values).transpose(0, 1).to(query.dtype)
    unused = query.new_zeros(0)
    return output, query.new_zeros(query.shape[1], len(query), dtype=torch.float32), unused, unused, unused


def flash_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    sums: Tensor,
    *settings: Any,
    **more: Any,
) -> tuple[Tensor, ...]:
    """Stands for `aten::_flash_attention_backward`: with P = softmax(s q k^T) and o = P v,

    dv = P^T do, dS = P (do v^T - sum(P do v^T)), dq = s dS k, dk = s dS^T q.
    """
    gradients = [torch.zeros_like(part) for part in (query, key, value)]
    scale = query.shape[2] ** -0.5 if more.get("scale") is None else more.get("scale")
    groups = query.shape[1] // key.shape[1]
    for rows, (queries, keys, values) in sequences(query, key, value, *settings, **more):
        shares, outputs = weights(queries, keys, more.get("scale")), gradient[rows].transpose(0, 1).double()
        by_share = outputs @ values.mT
        by_score = shares * (by_share - (shares * by_share).sum(-1, keepdim=True)) * scale
        by_key, by_value = (
            part.unflatten(0, (-1, groups)).sum(1) for part in (by_score.mT @ queries, shares.mT @ outputs)
        )
        for whole, part in zip(gradients, (by_score @ keys, by_key, by_value), strict=True):
            whole[rows] = part.transpose(0, 1).to(whole.dtype)
    return tuple(gradients)


def sequences(
    query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, key_boundaries: Tensor, longest: int,
    longest_key: int, dropout: float, is_causal: bool, *rest: Any, window_size_left: int,
    window_size_right: int, **more: Any,
) -> Iterator[tuple[slice, list[Tensor]]]:  # fmt: skip
    """Rows of each sequence, and its query, key and value [heads, L, dim] in float64, key heads repeated."""
    assert boundaries.dtype == torch.int32 and torch.equal(boundaries, key_boundaries) and dropout == 0.0
    assert (is_causal, window_size_left, window_size_right) == (True, -1, 0)
    for start, end in itertools.pairwise(boundaries.tolist()):
        assert end - start <= longest == longest_key
        parts = [part[start:end].transpose(0, 1).double() for part in (query, key, value)]
        yield slice(start, end), [part.repeat_interleave(query.shape[1] // len(part), 0) for part in parts]


def weights(query: Tensor, key: Tensor, scale: float | None) -> Tensor:
    """[heads, L, L] of causal attention."""
    scores = query @ key.mT * (query.shape[2] ** -0.5 if scale is None else scale)
    return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf")).softmax(-1)


@pytest.fixture(scope="module", autouse=True)
def kernel_by_definition() -> Iterator[None]:
    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", flash_forward, "CPU")
    library.impl("_flash_attention_backward", flash_backward, "CPU")
    yield
    library._destroy()


@pytest.mark.parametrize(
    "batch", [WHOLE, Packed([1] * 40, [0] * 40), Packed([300], [0])], ids=["mixed", "short", "one"]
)
@pytest.mark.parametrize("heads", [(2, 2), (6, 2)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_values_and_gradients_are_those_of_the_definition(batch, heads, scale):
    *parts, in_loss = packed.inputs(batch, heads, (16, 16))
    leaves = [part.requires_grad_() for part in parts]
    ours = by_boundaries(*parts, batch.layout(), Scoring(scale=scale, window=None, softcap=None, sinks=None))
    wanted = packed.attend(*parts, batch.visible(), scale=scale)
    torch.testing.assert_close(ours.double(), wanted, rtol=1e-5, atol=2e-6)
    gradients = torch.autograd.grad((ours * in_loss).sum(), leaves)
    for gradient, reference in zip(gradients, torch.autograd.grad((wanted * in_loss).sum(), leaves), strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)
