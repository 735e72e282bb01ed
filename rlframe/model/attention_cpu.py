"""Attention over short sequences side by side, so that a whole batch takes a few calls; what CPUs use.

A call for each sequence of some dozen tokens costs a CPU more than it computes, and over many at once the backward pass
of PyTorch's own kernel takes in bfloat16 six times what this one does. Sequences of about one size make one grid: their
tokens are gathered into it, padded behind, and so are, before a sequence's own keys, those of what it continues. Tokens
then collect what all grids have for them: adding a grid's rows where they came from takes a CPU three times as long.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import embedding_bag
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from rlframe.model.layout import Layout

SHORT = 256  # tokens of a sequence up to which a call of its own costs more than padding
SHORTEST = 15  # tokens up to which padding costs less than a call for each size
CELLS = 1 << 18  # of a grid, queries by keys: scores of all heads stay in a processor's cache
COPIED = 8  # times a batch's keys: grids' copies of them whose gradients are held at once; only long prompts make more
KEPT = 2 * SHORT  # keys up to which a grid's weights are held from the forward pass to the backward pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """N sequences of at most L tokens that continue at most P.

    Padding stands for any token. No query sees such a key, and nobody reads such a query.
    """

    queries: Tensor  # [N, heads, L] where each token's part of a key's head lies among the batch's T * heads
    keys: Tensor  # [N, heads, P + L] the same of what each sees: what it continues, then its own
    real_keys: Tensor  # [N, P + L] whether it is no padding
    hidden: Tensor  # [N, 1, L, 1, P + L] what is added to scores: 0, or -inf where a query does not see a key; float32

    @property
    def real(self) -> Tensor:
        """[N, L]: whether a query is no padding; the last keys are the queries' own."""
        return self.real_keys[:, -self.queries.shape[2] :]

    def weights(self, query: Tensor, key: Tensor) -> Tensor:
        """softmax(q k^T) of scaled [N * heads, L * g, dim] and [N * heads, P + L, dim]; g queries share a head."""
        scores = torch.bmm(query, key.mT)
        longest = self.queries.shape[2]
        scores.view(*self.queries.shape[:2], longest, query.shape[1] // longest, key.shape[1]).add_(self.hidden)
        return scores.softmax(-1)

    def without_padding(self, part: Tensor) -> Tensor:
        """[N * heads, L * g, dim], with padding's rows made 0 in place."""
        part.view(*self.queries.shape, -1).mul_(self.real[:, None, :, None])
        return part


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Which rows of grids, one after the other, stand for each of a batch's T * heads parts of a key's head."""

    rows: Tensor  # of the first part, then of the second, ...
    begins: Tensor  # [T * heads] where those of each part begin

    @classmethod
    def of(cls, places: list[Tensor], real: list[Tensor], parts: int) -> Copies:
        """From each grid's [N, heads, L] places and what of its [N, L] is no padding."""
        real_rows = [part[:, None].expand_as(at).flatten() for at, part in zip(places, real, strict=True)]
        rows = torch.cat(real_rows).nonzero()[:, 0]
        of_rows = torch.cat([part.flatten() for part in places])[rows]
        counts = torch.bincount(of_rows, minlength=parts)
        return cls(rows=rows[of_rows.argsort(stable=True)], begins=counts.cumsum(0) - counts)

    def sums(self, rows: Tensor) -> Tensor:
        """[rows, dim] of the grids -> [T * heads, dim]: of each part's rows; 0 for one that no grid has."""
        return embedding_bag(self.rows, rows, self.begins, mode="sum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """Grids whose rows are collected at once."""

    grids: list[Grid]
    queries: Copies
    keys: Copies

    @classmethod
    def of(cls, grids: list[Grid], parts: int) -> Round:
        """`parts`: a batch's T * heads."""
        queries = Copies.of([grid.queries for grid in grids], [grid.real for grid in grids], parts)
        keys = Copies.of([grid.keys for grid in grids], [grid.real_keys for grid in grids], parts)
        return cls(grids=grids, queries=queries, keys=keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Who shares a call in a batch."""

    rounds: list[Round]
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
    grids = [_grid(layout, part, window, heads) for part in parts]
    size = sum(layout.lengths) * heads
    return Plan(rounds=[Round.of(together, size) for together in _rounds(grids, COPIED * size)], alone=alone)


def attend(plan: Plan, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Of a batch's [T, heads, dim] -> [T, heads, value_dim]; 0 for tokens that are in no grid."""
    scale = query.shape[2] ** -0.5 if scaling is None else scaling
    if not plan.rounds:
        return query.new_zeros(*query.shape[:2], value.shape[2])
    return reduce(torch.add, (_Attention.apply(query, key, value, together, scale) for together in plan.rounds))


class _Attention(Function):
    """o = softmax(scale q k^T) v, grid by grid, in float32.

    A grid of few keys keeps its weights for the backward pass: they are less than a layer's hidden states.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, together: Round, scale: float) -> Tensor:
        attended, kept = [], []
        for grid in together.grids:
            q, k, v = _inputs(grid, query, key, value, scale)
            weights = grid.weights(q, k)
            attended.append(torch.bmm(weights, v))
            kept.append(weights if k.shape[1] <= KEPT else None)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.together, ctx.scale = together, scale
        return _collected(together.queries, attended, (*query.shape[:2], value.shape[2])).to(query.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, *kept = ctx.saved_tensors
        of_query, of_key, of_value = [], [], []
        for grid, weights in zip(ctx.together.grids, kept, strict=True):
            q, k, v = _inputs(grid, query, key, value, ctx.scale)
            weights = grid.weights(q, k) if weights is None else weights
            of_attended = grid.without_padding(_taken(grad, grid.queries))
            of_weights = torch.bmm(of_attended, v.mT)
            of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
            of_query.append(torch.bmm(of_scores, k).mul_(ctx.scale))
            of_key.append(torch.bmm(of_scores.mT, q))
            of_value.append(torch.bmm(weights.mT, of_attended))
        gradients = (
            _collected(ctx.together.queries, of_query, query.shape),
            _collected(ctx.together.keys, of_key, key.shape),
            _collected(ctx.together.keys, of_value, value.shape),
        )
        return *(gradient.to(query.dtype) for gradient in gradients), None, None


def _inputs(grid: Grid, query: Tensor, key: Tensor, value: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """A grid's scaled queries, keys and values in float32."""
    return _taken(query, grid.queries) * scale, _taken(key, grid.keys), _taken(value, grid.keys)


def _taken(part: Tensor, places: Tensor) -> Tensor:
    """[T, heads * g, dim] at [N, heads, L] -> [N * heads, L * g, dim] float32."""
    cells, heads, _ = places.shape
    rows = part.reshape(len(part) * heads, -1).index_select(0, places.flatten()).float()
    return rows.view(cells * heads, -1, part.shape[2])


def _collected(copies: Copies, parts: list[Tensor], shape: tuple[int, ...]) -> Tensor:
    """The reverse of `_taken`: each grid's [N * heads, L * g, dim] -> [T, heads * g, dim], which is `shape`."""
    width = math.prod(shape) // len(copies.begins)
    return copies.sums(torch.cat([part.view(-1, width) for part in parts])).view(shape)


def _size(tokens: int) -> int:
    return max(tokens, SHORTEST).bit_length() if tokens else 0


def _parts(layout: Layout, alike: list[int]) -> list[list[int]]:
    """As few as keep each one's queries by keys within CELLS."""
    longest = max(layout.lengths[at] for at in alike)
    each = longest * (longest + max(len(layout.contexts[at]) for at in alike))
    size = max(1, CELLS // each)
    return [alike[first : first + size] for first in range(0, len(alike), size)]


def _rounds(grids: list[Grid], rows: int) -> list[list[Grid]]:
    """Neighbours together, of at most so many rows of keys where there is more than one grid."""
    rounds: list[list[Grid]] = []
    held = 0
    for grid in grids:
        held += grid.keys.numel()
        if not rounds or held > rows:
            rounds.append([])
            held = grid.keys.numel()
        rounds[-1].append(grid)
    return rounds


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
    real_keys = torch.cat([there, real], dim=1)
    hidden = torch.zeros(seen.shape).masked_fill(~seen, float("-inf"))
    keys = torch.cat([prompts, queries], dim=1)
    queries, keys = (places[:, None] * heads + torch.arange(heads)[:, None] for places in (queries, keys))
    return Grid(queries=queries, keys=keys, real_keys=real_keys, hidden=hidden[:, None, :, None])


def _padded(places: list[Tensor]) -> tuple[Tensor, Tensor]:
    """[N, longest]: each one's places, and which of these are no padding."""
    lengths = torch.tensor([len(part) for part in places])
    padded = pad_sequence(places, batch_first=True)
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]
