"""Attention over packed sequences and shared prompts, as an attention implementation of transformers.

A token attends to earlier tokens of its own sequence and to the tokens that its sequence continues (`layout.py`).
The layout travels as a keyword argument that transformers passes to every layer. A config key can choose one of
transformers' own implementations that read packed boundaries (`flash_attention_2`); they take whole sequences only.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rlframe.model import attention_cpu
from rlframe.types import PACKED_ATTENTION

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from rlframe.model.layout import Layout

ROWS = 512  # queries per call with a mask: bounds the mask's memory, and leaves out keys after the last query


def register() -> None:
    """Makes `attn_implementation="rlframe_packed"` known to transformers (its AttentionInterface)."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED_ATTENTION, packed_attention)


def arguments(layout: Layout, implementation: str) -> dict[str, Any]:
    """Keyword arguments of a model's forward that tell `implementation` the layout.

    Raises ValueError where a prompt is shared and the implementation takes whole sequences only.
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
    """-> [1, T, heads, value_dim], and no attention weights. Raises ValueError for a model that needs more."""
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
    """One call per long sequence, a few calls for all short ones -> [1, heads, T, value_dim]; for CPUs.

    Seven times as fast there as one masked [T, T] call.
    """
    import torch

    attended, long_sequences = attention_cpu.attend(query, key, value, layout, scaling, window)
    if not long_sequences:
        return attended.transpose(0, 1)[None]
    outputs = list(attended.split(layout.lengths))
    queries, keys, values = (tensor.split(layout.lengths, 2) for tensor in (query, key, value))
    for number in long_sequences:
        context = layout.contexts[number]
        visible_keys, visible_values = (
            torch.cat([tensor[:, :, context], own[number]], 2) if len(context) else own[number]
            for tensor, own in ((key, keys), (value, values))
        )
        outputs[number] = torch.cat(
            [
                output[0].transpose(0, 1)
                for output in _causal(queries[number], visible_keys, visible_values, scaling, window)
            ]
        )
    return torch.cat(outputs).transpose(0, 1)[None]


def by_block_mask(
    query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None, window: int | None
) -> Tensor:
    """FlexAttention, which leaves out blocks that no token attends to -> [1, heads, T, value_dim]; for GPUs.

    On a CPU it has no backward pass, and tests run it without its compiler.
    """
    flex_attention, _ = _flex(query.is_cuda)
    grouped = key.shape[1] != query.shape[1]
    return flex_attention(query, key, value, block_mask=_block_mask(layout, window), scale=scaling, enable_gqa=grouped)


def by_boundaries(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float | None) -> Tensor:
    """PyTorch's varlen kernel -> [1, heads, T, head_dim]; for GPUs, if no sequence of the batch continues another."""
    from torch.nn.attention.varlen import varlen_attn

    boundaries, longest = _boundaries(layout), max(layout.lengths)
    query_rows, key_rows, value_rows = (tensor[0].transpose(0, 1) for tensor in (query, key, value))  # [T, heads, dim]
    attended: Any = varlen_attn(
        query_rows,
        key_rows,
        value_rows,
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
    """True if a batch on a GPU is beyond the varlen kernel, which takes whole sequences in 16 bits without a window."""
    plain = window is None and query.shape[-1] == value.shape[-1] and query.element_size() == 2
    return not (plain and layout.are_whole())


def _causal(query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None) -> list[Tensor]:
    """Outputs of queries that are the last tokens of the keys' sequence, cut along the tokens."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    grouped = key.shape[1] != query.shape[1]
    rows, context = query.shape[2], key.shape[2] - query.shape[2]
    if not context and (window is None or rows <= window):
        return [scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)]
    attended = []
    for start in range(0, rows, ROWS):
        end = min(start + ROWS, rows)
        visible = torch.ones(end - start, context + end, dtype=torch.bool).tril(context + start)
        if window is not None:
            visible = visible.triu(context + start - window + 1)
        attended.append(
            scaled_dot_product_attention(
                query[:, :, start:end],
                key[:, :, : context + end],
                value[:, :, : context + end],
                attn_mask=visible,
                scale=scaling,
                enable_gqa=grouped,
            )
        )
    return attended


@lru_cache(maxsize=2)  # the batch at hand; a model may have layers with a window and layers without
def _block_mask(layout: Layout, window: int | None) -> Any:
    """FlexAttention's mask: the [T, T] blocks of 128 x 128 with visible tokens, and the visible tokens in them."""
    positions = layout.position_ids
    until = layout.until.to(positions.device)

    def is_visible(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        visible = (row >= column) & (row < until[column])
        return visible if window is None else visible & (positions[row] - positions[column] < window)

    _, create_block_mask = _flex(positions.is_cuda)
    return create_block_mask(is_visible, None, None, len(until), len(until), device=positions.device.type)


@lru_cache(maxsize=1)  # the batch at hand: every layer needs them
def _boundaries(layout: Layout) -> Tensor:
    return layout.boundaries()


@lru_cache(maxsize=2)
def _flex(compiled: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if not compiled:
        return flex_attention, create_block_mask
    return torch.compile(flex_attention, dynamic=True), torch.compile(create_block_mask, dynamic=True)
