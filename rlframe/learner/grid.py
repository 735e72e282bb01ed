"""Short sequences side by side, so that a whole batch takes a few calls of attention; what CPUs use.

A call for each sequence of some dozen tokens, and a copy of its prompt for each, cost a CPU more than it computes.
Here sequences of about one size make one grid: rows of the batch are gathered into it, padded behind, and so are the
prompts that they continue.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from rlframe.learner.layout import Layout

SHORT = 256  # tokens of a sequence up to which a call of its own costs more than padding
CELLS = 1 << 23  # of a grid's mask, queries by keys: bounds its memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """N sequences of at most L tokens that continue F prompts of at most P."""

    tokens: Tensor  # [N, L] where they lie in the batch; padding, at their first token's place, causality hides
    real: Tensor  # [tokens that are no padding] where they are in N * L
    prompts: Tensor | None  # [F, P] where the prompts lie; None: the sequences are whole
    family: Tensor  # [N] whose prompt each continues, of F
    seen: Tensor | None  # [N, 1, L, P + L] which key a query sees; None: every earlier one

    def attend(self, rows: list[Tensor], scaling: float | None) -> Tensor:
        """Of a batch's queries, keys and values [T, heads, dim] -> [real tokens, heads, value_dim]."""
        query, key, value = (_taken(part, self.tokens) for part in rows)
        if self.prompts is not None:
            key, value = (
                torch.cat([_taken(part, self.prompts).index_select(0, self.family), own], dim=1)
                for part, own in zip(rows[1:], (key, value), strict=True)
            )
        attended = scaled_dot_product_attention(
            *(part.transpose(1, 2) for part in (query, key, value)),
            attn_mask=self.seen,
            is_causal=self.seen is None,
            scale=scaling,
            enable_gqa=key.shape[2] != query.shape[2],
        )
        return attended.transpose(1, 2).flatten(0, 1).index_select(0, self.real)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Who shares a call in a batch of T tokens."""

    grids: list[Grid]
    alone: list[int]  # sequences too long for that
    order: Tensor  # [T] where each token is in what the grids and then the others give, end to end


@lru_cache(maxsize=2)  # of the batch at hand; with a window and without, for models that have layers of both
def plan(layout: Layout, window: int | None) -> Plan:
    """Short sequences go together where they and their prompts are of about one size (within a power of two).

    So padding at most doubles either. A long prompt is for its own completions only, as it is copied for each.
    `window`: of sliding attention, in tokens.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for at, (tokens, shared, root) in enumerate(zip(layout.lengths, layout.shared, layout.roots, strict=True)):
        if tokens <= SHORT:
            prompt = (shared.bit_length(),) if shared <= SHORT else (shared, root)
            alike.setdefault((tokens.bit_length(), *prompt), []).append(at)
    together = [part for found in alike.values() for part in _parts(layout, found)]
    alone = [at for at, tokens in enumerate(layout.lengths) if tokens > SHORT]
    starts = layout.starts()
    places = [
        torch.arange(starts[at], starts[at] + layout.lengths[at])
        for at in (*(at for part in together for at in part), *alone)
    ]
    return Plan(
        grids=[_grid(layout, part, window) for part in together], alone=alone, order=torch.cat(places).argsort()
    )


def _parts(layout: Layout, alike: list[int]) -> list[list[int]]:
    """As few as keep each one's mask within CELLS."""
    longest = max(layout.lengths[at] for at in alike)
    each = longest * (longest + max(layout.shared[at] for at in alike))
    size = max(1, CELLS // each)
    return [alike[first : first + size] for first in range(0, len(alike), size)]


def _grid(layout: Layout, together: list[int], window: int | None) -> Grid:
    """Of sequences that are all whole, or all continue prompts."""
    lengths, shared = (torch.tensor([of[at] for at in together]) for of in (layout.lengths, layout.shared))
    of_prompts = {layout.roots[at]: layout.shared[at] for at in together}
    numbers = {root: number for number, root in enumerate(of_prompts)}
    family = torch.tensor([numbers[layout.roots[at]] for at in together])
    tokens, real = _places(layout, together, lengths)
    prompts = _places(layout, list(of_prompts), torch.tensor(list(of_prompts.values())))[0] if shared.any() else None
    seen = None
    if prompts is not None or (window is not None and lengths.max() > window):
        seen = _seen(shared, tokens.shape[1], 0 if prompts is None else prompts.shape[1], window)
    return Grid(tokens=tokens, real=real.flatten().nonzero()[:, 0], prompts=prompts, family=family, seen=seen)


def _places(layout: Layout, sequences: list[int], lengths: Tensor) -> tuple[Tensor, Tensor]:
    """[N, longest]: where the first so many tokens of each lie in the batch, and which of these are no padding."""
    starts = torch.tensor(layout.starts())[sequences]
    steps = torch.arange(int(lengths.max()))
    real = steps < lengths[:, None]
    return starts[:, None] + steps * real, real


def _seen(shared: Tensor, longest: int, before: int, window: int | None) -> Tensor:
    """[N, 1, longest, before + longest] which keys, of a prompt of `shared` tokens and then its own, a query sees."""
    of_prompt = torch.arange(before).expand(len(shared), -1)
    queries = shared[:, None] + torch.arange(longest)  # positions
    there = torch.cat([of_prompt < shared[:, None], torch.ones_like(queries, dtype=torch.bool)], dim=1)
    back = queries[:, :, None] - torch.cat([of_prompt, queries], dim=1)[:, None]
    seen = there[:, None] & (back >= 0)
    return (seen if window is None else seen & (back < window))[:, None]


def _taken(part: Tensor, places: Tensor) -> Tensor:
    """Rows of [T, heads, dim] -> [*places, heads, dim]."""
    return part.index_select(0, places.flatten()).unflatten(0, places.shape)
