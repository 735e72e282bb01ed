"""Attention over packed sequences and shared prompts, as an attention implementation of transformers.

A token attends to earlier tokens of its own sequence, and to those that its sequence continues (`layout.py`).
The layout travels as a keyword, which transformers hands to every layer. Implementations of transformers' own that
read packed boundaries (`flash_attention_2`) can stand in for this one by a config key; they see whole sequences.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rlframe.model import attention_cpu as grid
from rlframe.types import PACKED_ATTENTION

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from rlframe.model.layout import Layout

ROWS = 512  # queries at a time where a mask is needed: bounds its memory, and keys that no row sees are left out


def register() -> None:
    """Makes `attn_implementation="rlframe_packed"` known to transformers (its AttentionInterface)."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED_ATTENTION, packed_attention)


def arguments(layout: Layout, implementation: str) -> dict[str, Any]:
    """What a model's forward takes for `implementation` to know the layout.

    Raises ValueError where a prompt is shared and the implementation cannot know.
    """
    if implementation == PACKED_ATTENTION:
        return {"layout": layout}
    if not layout.are_whole():
        raise ValueError(f"attention {implementation!r} takes whole sequences only, and this batch shares prompts")
    boundaries, longest = layout.boundaries(), max(layout.lengths)
    return {
        "cu_seq_lens_q": boundaries,
        "cu_seq_lens_k": boundaries,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,  # [1, heads, T, head_dim]
    key: Tensor,  # [1, key_value_heads, T, head_dim]
    value: Tensor,  # [1, key_value_heads, T, value_dim]
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """-> [1, T, heads, value_dim], and no attention weights. ValueError: a model that needs more than this."""
    if unknown := [name for name in ("softcap", "s_aux", "position_bias") if kwargs.get(name) is not None]:
        raise ValueError(
            f"{PACKED_ATTENTION} knows no {unknown[0]}, which {type(module).__name__} needs; set learner.attention"
        )
    if not query.is_cuda:
        attended = by_sequence(query, key, value, layout, scaling, sliding_window)
    elif takes_block_mask(query, value, layout, sliding_window):
        attended = by_block_mask(query, key, value, layout, scaling, sliding_window)
    else:
        attended = by_boundaries(query, key, value, layout, scaling)
    return attended.transpose(1, 2), None


def by_sequence(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None, window: int | None
) -> Tensor:
    """A call a long sequence, and one for all short ones of about one size -> [1, heads, T, value_dim]; what CPUs use.

    Seven times as fast there as one masked [T, T] call.
    """
    import torch

    plan = grid.plan(layout, window, key.shape[1])
    attended = grid.attend(plan, *(part[0].transpose(0, 1) for part in (query, key, value)), scaling)
    if not plan.alone:
        return attended.transpose(0, 1)[None]
    parts = list(attended.split(layout.lengths))
    of_sequences = [part.split(layout.lengths, 2) for part in (query, key, value)]
    for at in plan.alone:
        own, *seen = (parts[at] for parts in of_sequences)
        if len(context := layout.contexts[at]):
            seen = [
                torch.cat([part[:, :, context], held], dim=2) for part, held in zip((key, value), seen, strict=True)
            ]
        parts[at] = torch.cat([part[0].transpose(0, 1) for part in _causal(own, *seen, scaling, window)])
    return torch.cat(parts).transpose(0, 1)[None]


def by_block_mask(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None, window: int | None
) -> Tensor:
    """FlexAttention, which leaves out whole blocks that no token sees -> [1, heads, T, value_dim]; what GPUs use.

    On a CPU it has no backward pass, and tests run it without its compiler.
    """
    flex_attention, _ = _flex(query.is_cuda)
    grouped = key.shape[1] != query.shape[1]
    return flex_attention(query, key, value, block_mask=_block_mask(layout, window), scale=scaling, enable_gqa=grouped)


def by_boundaries(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None) -> Tensor:
    """PyTorch's varlen kernel -> [1, heads, T, head_dim]; what GPUs use where a whole batch is whole sequences."""
    from torch.nn.attention.varlen import varlen_attn

    boundaries, longest = _boundaries(layout), max(layout.lengths)
    rows = (part[0].transpose(0, 1) for part in (query, key, value))  # [T, heads, head_dim]
    attended = varlen_attn(
        *rows,
        boundaries,
        boundaries,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),  # every earlier token, no later one
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return attended.transpose(0, 1)[None]


def takes_block_mask(query: Tensor, value: Tensor, layout: Layout, window: int | None) -> bool:
    """Whether a batch on a GPU is more than the varlen kernel does: that one is for whole sequences in 16 bits."""
    plain = window is None and query.shape[-1] == value.shape[-1] and query.element_size() == 2
    return not (plain and layout.are_whole())


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None) -> list[Tensor]:
    """Queries are the last rows of the keys' sequence -> their outputs, in parts along the rows."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    grouped = key.shape[1] != query.shape[1]
    rows, before = query.shape[2], key.shape[2] - query.shape[2]
    if not before and (window is None or rows <= window):
        return [scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)]
    attended = []
    for start in range(0, rows, ROWS):
        end = min(start + ROWS, rows)
        visible = torch.ones(end - start, before + end, dtype=torch.bool).tril(before + start)
        if window is not None:
            visible = visible.triu(before + start - window + 1)
        attended.append(
            scaled_dot_product_attention(
                query[:, :, start:end],
                key[:, :, : before + end],
                value[:, :, : before + end],
                attn_mask=visible,
                scale=scaling,
                enable_gqa=grouped,
            )
        )
    return attended


@lru_cache(maxsize=2)  # of the batch at hand; with a window and without, for models that have layers of both
def _block_mask(layout: Layout, window: int | None) -> Any:
    """Which [T, T] blocks of 128 x 128 hold anything to see, and what in them is seen."""
    positions = layout.position_ids
    until = layout.until.to(positions.device)

    def sees(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        seen = (row >= column) & (row < until[column])
        return seen if window is None else seen & (positions[row] - positions[column] < window)

    _, create_block_mask = _flex(positions.is_cuda)
    return create_block_mask(sees, None, None, len(until), len(until), device=positions.device.type)


@lru_cache(maxsize=1)  # of the batch at hand: every layer asks
def _boundaries(layout: Layout) -> Tensor:
    return layout.boundaries()


@lru_cache(maxsize=2)
def _flex(compiled: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    functions = (flex_attention, create_block_mask)
    return tuple(torch.compile(function, dynamic=True) for function in functions) if compiled else functions
