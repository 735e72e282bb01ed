"""Buys 30 % of a learner step on CPUs; nothing on GPUs; delete when torch's varlen attention covers CPUs.

(SmolLM2-135M, prompts of 70 and completions of 25 tokens, two cores.) A call of PyTorch's attention for each sequence
of some dozen tokens costs a CPU more than the arithmetic. Here a few products in float32 serve all short sequences.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from rlframe.model.layout import Layout

SHORT = 384  # tokens of a sequence and its context; for longer ones a call per sequence is as fast
SHORTEST = 15  # tokens; padding up to here costs less than one more grid
CELLS = 1 << 18  # queries times keys of a grid: the scores of all heads stay in a processor's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """N sequences of about one size: at most L own tokens each, after contexts of at most P.

    "x y" and "z", which continue "a b c" of "a b c d e", in a batch of 8 tokens and one key head; 8 is padding:

        queries  5 6    keys  0 1 2 5 6    mask  0 0 0 0 -inf    0 0 0 0 0
                 7 8          0 1 2 7 8          0 0 0 0 -inf    0 0 0 0 0

    Rows are those of a [(T + 1) * heads, width] table with a token's heads side by side; token T is padding, all 0.
    """

    queries: Tensor  # [N, heads, L] the row of each query
    keys: Tensor  # [N, heads, P + L] the rows of a sequence's context, then of its own tokens
    mask: Tensor  # [N, 1, L, 1, P + L] float32, added to scores: -inf at a key that the query does not attend to


def attend(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None, window: int | None
) -> tuple[Tensor, list[int]]:
    """[1, heads, T, dim] -> [T, heads, value_dim], 0 at tokens of long sequences; and the numbers of the long ones."""
    grids, long_sequences = plan(layout, window, key.shape[1])
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    if not grids:
        return query.new_zeros(*query.shape[:2], value.shape[2]), long_sequences
    scale = query.shape[2] ** -0.5 if scaling is None else scaling
    return _Attention.apply(query, key, value, grids, scale), long_sequences


@lru_cache(maxsize=2)  # the batch at hand; a model may have layers with a window and layers without
def plan(layout: Layout, window: int | None, heads: int) -> tuple[list[Grid], list[int]]:
    """Grids of short sequences, and the numbers of the long ones. `window`: in tokens; `heads`: of keys.

    A grid's sequences are equal in size within a power of two, and so are contexts: padding at most doubles either.
    """
    by_size: dict[tuple[int, int], list[int]] = {}
    long_sequences = []
    for number, (length, context) in enumerate(zip(layout.lengths, layout.contexts, strict=True)):
        if length + len(context) > SHORT:
            long_sequences.append(number)
        else:
            by_size.setdefault((_size_class(length), _size_class(len(context))), []).append(number)
    grids = []
    for numbers in by_size.values():
        longest = max(layout.lengths[number] for number in numbers)
        longest_context = max(len(layout.contexts[number]) for number in numbers)
        count = max(1, CELLS // (longest * (longest + longest_context)))
        grids += [_grid(layout, numbers[i : i + count], window, heads) for i in range(0, len(numbers), count)]
    return grids, long_sequences


def _size_class(tokens: int) -> int:
    return max(tokens, SHORTEST).bit_length() if tokens else 0


def _grid(layout: Layout, numbers: list[int], window: int | None, heads: int) -> Grid:
    starts, padding = layout.starts(), sum(layout.lengths)
    contexts = [layout.contexts[number] for number in numbers]
    own_tokens = [torch.arange(starts[number], starts[number] + layout.lengths[number]) for number in numbers]
    context, own = (pad_sequence(rows, batch_first=True, padding_value=padding) for rows in (contexts, own_tokens))
    keys = torch.cat([context, own], dim=1)
    # Padding comes after every token, so only padding attends to it, and no softmax is over nothing.
    positions = pad(layout.position_ids, (0, 1), value=1 << 40)
    distance = positions[own][:, :, None] - positions[keys][:, None]
    visible = distance >= 0 if window is None else (distance >= 0) & (distance < window)
    mask = torch.zeros(visible.shape).masked_fill(~visible, float("-inf"))
    query_rows, key_rows = (tokens[:, None] * heads + torch.arange(heads)[:, None] for tokens in (own, keys))
    return Grid(queries=query_rows, keys=key_rows, mask=mask[:, None, :, None])


class _Attention(Function):
    """o = softmax(scale q k^T) v of [T, heads, dim], grid by grid, in float32; g query heads share a key head.

    The weights are kept for the backward pass: at most SHORT per query, less than a layer's other activations.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, grids: list[Grid], scale: float) -> Tensor:
        heads = key.shape[1]
        query_table, key_table, value_table = (_table(tensor, heads) for tensor in (query, key, value))
        output = query.new_zeros(*query.shape[:2], value.shape[2], dtype=torch.float32)
        output_table = _table(output, heads)
        kept_weights = []
        for grid in grids:
            scores = torch.bmm(_gather(query_table, grid.queries).mul_(scale), _gather(key_table, grid.keys).mT)
            scores.view(*grid.queries.shape, -1, scores.shape[2]).add_(grid.mask)
            weights = scores.softmax(-1)
            _add(output_table, grid.queries, torch.bmm(weights, _gather(value_table, grid.keys)))
            kept_weights.append(weights)
        ctx.save_for_backward(query, key, value, *kept_weights)
        ctx.grids, ctx.scale = grids, scale
        return output_table[:-heads].view_as(output).to(query.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # read once: activation checkpointing allows no second time
        inputs, kept_weights, heads = saved[:3], saved[3:], saved[1].shape[1]
        query_table, key_table, value_table, grad_table = (_table(tensor, heads) for tensor in (*inputs, *grads))
        sums = [torch.zeros_like(table, dtype=torch.float32) for table in (query_table, key_table, value_table)]
        for grid, weights in zip(ctx.grids, kept_weights, strict=True):
            grad_output = _gather(grad_table, grid.queries)
            grad_weights = torch.bmm(grad_output, _gather(value_table, grid.keys).mT)
            grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_scores.mul_(ctx.scale)
            _add(sums[0], grid.queries, torch.bmm(grad_scores, _gather(key_table, grid.keys)))
            _add(sums[1], grid.keys, torch.bmm(grad_scores.mT, _gather(query_table, grid.queries)))
            _add(sums[2], grid.keys, torch.bmm(weights.mT, grad_output))
        gradients = (total[:-heads].view_as(x).to(x.dtype) for total, x in zip(sums, inputs, strict=True))
        return *gradients, None, None


def _table(tensor: Tensor, heads: int) -> Tensor:
    """[T, heads * g, dim] -> [(T + 1) * heads, g, dim]: a row for each token and key head; padding's rows are 0."""
    return pad(tensor, (0, 0, 0, 0, 0, 1)).view((len(tensor) + 1) * heads, -1, tensor.shape[2])


def _gather(table: Tensor, rows: Tensor) -> Tensor:
    """[rows, g, dim] at [N, heads, L] -> [N * heads, L * g, dim] float32."""
    return table.index_select(0, rows.flatten()).float().view(rows.shape[0] * rows.shape[1], -1, table.shape[2])


def _add(table: Tensor, rows: Tensor, values: Tensor) -> None:
    """The reverse of `_gather`: adds [N * heads, L * g, dim] to the table's rows at [N, heads, L]."""
    table.index_add_(0, rows.flatten(), values.view(-1, *table.shape[1:]))
