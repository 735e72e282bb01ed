"""Packed sequences for tests of attention: their layout, and attention over them by its definition, in float64."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rlframe.model.layout import Layout


class Packed(NamedTuple):
    """Sequences end to end. Sequence i continues the first `first_positions[i]` tokens of the one before it."""

    lengths: list[int]  # own tokens of each sequence
    first_positions: list[int]  # position of each sequence's first own token

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def layout(self) -> Layout:
        """As the learner makes it; anew at each call, as for a new batch."""
        positions = [
            torch.arange(begin, begin + own) for own, begin in zip(self.lengths, self.first_positions, strict=True)
        ]
        return Layout.of(torch.repeat_interleave(torch.tensor(self.lengths)), torch.cat(positions))

    def visible(self, window: int | None = None) -> Tensor:
        """[T, T] bool: row i has the tokens that token i attends to, from the path of tokens that leads to it."""
        rows = torch.zeros(self.tokens, self.tokens, dtype=torch.bool)
        path: list[int] = []
        token = 0
        for own, begin in zip(self.lengths, self.first_positions, strict=True):
            path = path[:begin]
            for _ in range(own):
                path = [*path, token]
                rows[token, path[-window:] if window else path] = True
                token += 1
        return rows


# A prompt of 150 with completions of 100, 30 and 200; a turn that continues 20 of the last one; a sequence of 130.
GROUP = Packed([250, 30, 200, 9, 130], [0, 150, 150, 170, 0])
SHORT = Packed([5, 1, 2, 1, 3, 2, 1, 4, 9, 2, 1, 1, 7], [0, 3, 4, 0, 0, 2, 1, 0, 0, 8, 9, 9, 0])  # 39 tokens
WHOLE = Packed([1, 3, 150, 2, 128, 5, 129, 60], [0] * 8)


def attend(
    query: Tensor,  # [1, heads, T, head_dim]
    key: Tensor,  # [1, key_value_heads, T, head_dim]
    value: Tensor,  # [1, key_value_heads, T, value_dim]
    visible: Tensor,  # [T, T] bool
    *,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,  # [heads]
) -> Tensor:
    """Attention by its definition, in float64 -> [1, heads, T, value_dim]."""
    groups = query.shape[1] // key.shape[1]
    query, key, value = query.double(), *(part.double().repeat_interleave(groups, 1) for part in (key, value))
    scores = query @ key.mT * (query.shape[3] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    weights = scores.exp() * visible
    totals = weights.sum(-1, keepdim=True)
    if sinks is not None:
        totals = totals + sinks.double().exp()[None, :, None, None]
    return weights / totals @ value


def inputs(packed: Packed, heads: tuple[int, int], dims: tuple[int, int], dtype: torch.dtype = torch.float32):
    """Random query, key and value, and weights of the outputs in a loss. `heads`: of queries, of keys and values."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(heads[0], dims[0]), (heads[1], dims[0]), (heads[1], dims[1]), (heads[0], dims[1])]
    return [torch.randn(1, count, packed.tokens, dim, generator=generator).to(dtype) for count, dim in shapes]
