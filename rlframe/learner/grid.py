"""Attention over short sequences side by side, so that a whole batch takes a few calls; what CPUs use.

A call for each sequence of some dozen tokens costs a CPU more than it computes, and over many at once the backward pass
of PyTorch's own kernel takes in bfloat16 six times what this one does. Sequences of about one size make one grid: their
tokens are gathered into it, padded behind, and so are, before a sequence's own keys, those of what it continues.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from rlframe.learner.layout import Layout

SHORT = 256  # tokens of a sequence up to which a call of its own costs more than padding
SHORTEST = 15  # tokens up to which padding costs less than a call for each size
CELLS = 1 << 18  # of a grid, queries by keys: scores of all heads stay in a processor's cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """N sequences of at most L tokens that continue at most P.

    Padding stands for any token. No query sees such a key, and nobody reads such a query.
    """

    queries: Tensor  # [N, heads, L] where each token's part of a key's head lies among the batch's T * heads
    real: Tensor  # [N, 1, L, 1] 1, or 0 for padding; float32
    keys: Tensor  # [N, heads, P + L] the same of what each sees: what it continues, then its own
    hidden: Tensor  # [N, 1, L, 1, P + L] what is added to scores: 0, or -inf where a query does not see a key; float32

    def weights(self, query: Tensor, key: Tensor) -> Tensor:
        """softmax(q k^T) of scaled [N * heads, L * g, dim] and [N * heads, P + L, dim]; g queries share a head."""
        scores = torch.bmm(query, key.mT)
        longest = self.queries.shape[2]
        scores.view(*self.queries.shape[:2], longest, query.shape[1] // longest, key.shape[1]).add_(self.hidden)
        return scores.softmax(-1)

    def without_padding(self, part: Tensor) -> Tensor:
        """[N * heads, L * g, dim], with padding's rows made 0 in place."""
        part.view(*self.queries.shape, -1).mul_(self.real)
        return part


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Who shares a call in a batch."""

    grids: list[Grid]
    alone: list[int]  # sequences too long for that


@lru_cache(maxsize=2)  # of the batch at hand; with a window and without, for models that have layers of both
def plan(layout: Layout, window: int | None, heads: int) -> Plan:
    """Short sequences go together where they and their prompts are of about one size (within a power of two).

    So padding at most doubles either, or is of a few tokens. A long prompt is for its own completions only, as it is
    copied for each. `window`: of sliding attention, in tokens; `heads`: of keys.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for at, (tokens, context) in enumerate(zip(layout.lengths, layout.contexts, strict=True)):
        if tokens <= SHORT:
            prompt = (_size(len(context)),) if len(context) <= SHORT else (len(context), int(context[-1]))
            alike.setdefault((_size(tokens), *prompt), []).append(at)
    parts = [part for found in alike.values() for part in _parts(layout, found)]
    alone = [at for at, tokens in enumerate(layout.lengths) if tokens > SHORT]
    return Plan(grids=[_grid(layout, part, window, heads) for part in parts], alone=alone)


def attend(grids: list[Grid], query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Of a batch's [T, heads, dim] -> [T, heads, value_dim]; 0 for tokens that are in no grid."""
    return _Attention.apply(query, key, value, grids, query.shape[2] ** -0.5 if scaling is None else scaling)


class _Attention(Function):
    """o = softmax(scale q k^T) v, grid by grid, in float32.

    The weights are kept for the backward pass: for short sequences they are few beside a layer's hidden states.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, grids: list[Grid], scale: float) -> Tensor:
        attended = torch.zeros(*query.shape[:2], value.shape[2])
        kept = []
        for grid in grids:
            q, k, v = _inputs(grid, query, key, value, scale)
            weights = grid.weights(q, k)
            _add(attended, grid.queries, grid.without_padding(torch.bmm(weights, v)))
            kept.append(weights)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.grids, ctx.scale = grids, scale
        return attended.to(query.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        of_query, of_key, of_value = (torch.zeros(part.shape) for part in (query, key, value))
        for grid, weights in zip(ctx.grids, kept, strict=True):
            q, k, v = _inputs(grid, query, key, value, ctx.scale)
            of_attended = grid.without_padding(_taken(grad, grid.queries))
            of_weights = torch.bmm(of_attended, v.mT)
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            _add(of_query, grid.queries, torch.bmm(of_scores, k) * ctx.scale)
            _add(of_key, grid.keys, torch.bmm(of_scores.mT, q))
            _add(of_value, grid.keys, torch.bmm(weights.mT, of_attended))
        return of_query.to(query.dtype), of_key.to(key.dtype), of_value.to(value.dtype), None, None


def _inputs(grid: Grid, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """A grid's scaled queries, keys and values in float32."""
    return _taken(query, grid.queries) * scale, _taken(key, grid.keys), _taken(value, grid.keys)


def _taken(part: Tensor, places: Tensor) -> Tensor:
    """[T, heads * g, dim] at [N, heads, L] -> [N * heads, L * g, dim] float32."""
    cells, heads, _ = places.shape
    rows = part.reshape(len(part) * heads, -1).index_select(0, places.flatten()).float()
    return rows.view(cells * heads, -1, part.shape[2])


def _add(total: Tensor, places: Tensor, part: Tensor) -> None:
    """The reverse of `_taken`: every row is added where it came from; a padding's is 0."""
    rows = part.view(places.numel(), -1)
    total.view(-1, rows.shape[1]).index_add_(0, places.flatten(), rows)


def _size(tokens: int) -> int:
    return max(tokens, SHORTEST).bit_length() if tokens else 0


def _parts(layout: Layout, alike: list[int]) -> list[list[int]]:
    """As few as keep each one's queries by keys within CELLS."""
    longest = max(layout.lengths[at] for at in alike)
    each = longest * (longest + max(len(layout.contexts[at]) for at in alike))
    size = max(1, CELLS // each)
    return [alike[first : first + size] for first in range(0, len(alike), size)]


def _grid(layout: Layout, together: list[int], window: int | None, heads: int) -> Grid:
    starts = layout.starts()
    prompts, there = _padded([layout.contexts[at] for at in together])
    queries, real = _padded([torch.arange(starts[at], starts[at] + layout.lengths[at]) for at in together])
    of_queries = there.sum(1, keepdim=True) + torch.arange(queries.shape[1])  # positions
    of_keys = torch.cat([torch.arange(prompts.shape[1]).expand(len(together), -1), of_queries], dim=1)
    back = of_queries[:, :, None] - of_keys[:, None]
    seen = torch.cat([there, torch.ones_like(real)], dim=1)[:, None] & (back >= 0)
    if window is not None:
        seen &= back < window
    hidden = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
    keys = torch.cat([prompts, queries], dim=1)
    queries, keys = (places[:, None] * heads + torch.arange(heads)[:, None] for places in (queries, keys))
    return Grid(queries=queries, real=real.float()[:, None, :, None], keys=keys, hidden=hidden[:, None, :, None])


def _padded(places: list[Tensor]) -> tuple[Tensor, Tensor]:
    """[N, longest]: each one's places, and which of these are no padding."""
    lengths = torch.tensor([len(part) for part in places])
    padded = pad_sequence(places, batch_first=True)
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]
