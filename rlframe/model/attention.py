"""Attention over packed sequences and shared prompts, as an attention implementation of transformers.

A token attends to earlier tokens of its own sequence and to the tokens that its sequence continues (`layout.py`).
The layout travels as a keyword argument that transformers passes to every layer. A config key can choose one of
transformers' own implementations that read packed boundaries (`flash_attention_2`); they take whole sequences only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rlframe.model import attention_cpu
from rlframe.training import PACKED_ATTENTION, Packing

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from rlframe.model.layout import Layout

VARIANTS = 32  # compiled forms of a function: with and without a window, gradients, more than one block, ...
ROWS = 512  # queries per call with a mask: bounds the mask's memory, and leaves out keys after the last query


def register() -> None:
    """Makes `attn_implementation="rlframe_packed"` known to transformers (its AttentionInterface)."""
    from transformers import AttentionInterface

    AttentionInterface.register(PACKED_ATTENTION, packed_attention)


def arguments(layout: Layout, packing: Packing, implementation: str) -> dict[str, Any]:
    """Keyword arguments of a model's forward that tell its layers the layout.

    In `whole` packing these are also the boundaries that flash attention reads (`cu_seq_lens_q`) and that the kernels
    of linear attention, of state spaces and of short convolutions read on GPUs (`cu_seq_lens_q`, `seq_idx`).
    Raises ValueError where a prompt is shared and the layers take whole sequences only.
    """
    for_our_attention = {"layout": layout} if implementation == PACKED_ATTENTION else {}
    if packing == "shared" and for_our_attention:
        return for_our_attention
    if not layout.are_whole():
        raise ValueError(f"{packing} packing takes whole sequences only, and this batch shares prompts")
    boundaries, longest = layout.boundaries(), max(layout.lengths)
    return for_our_attention | {
        "cu_seq_lens_q": boundaries,
        "cu_seq_lens_k": boundaries,
        "max_length_q": longest,
        "max_length_k": longest,
        "seq_idx": layout.sequence_numbers()[None],
    }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scoring:
    """A layer's way from queries and keys to attention weights."""

    scale: float | None  # of the products; None: 1 / sqrt(head_dim)
    window: int | None  # tokens that a token attends to, itself included; None: all earlier ones
    softcap: float | None  # scores are softcap * tanh(scores / softcap); Gemma 2
    sinks: Tensor | None  # [heads] score of a key without a value, which takes its share of the softmax; gpt-oss

    @property
    def is_plain(self) -> bool:
        """True if PyTorch's own attention computes this scoring."""
        return self.softcap is None and self.sinks is None


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
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """-> [1, T, heads, value_dim], and no attention weights. Raises ValueError for a model that needs more."""
    if kwargs.get("position_bias") is not None:
        raise ValueError(f"{PACKED_ATTENTION} knows no position_bias, which {type(module).__name__} needs")
    scoring = Scoring(scale=scaling, window=sliding_window, softcap=softcap, sinks=s_aux)
    if not query.is_cuda:
        attended = by_sequence(query, key, value, layout, scoring)
    elif takes_block_mask(query, value, layout, scoring):
        attended = by_block_mask(query, key, value, layout, scoring)
    else:
        attended = by_boundaries(query, key, value, layout, scoring)
    return attended.transpose(1, 2), None


def by_sequence(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scoring: Scoring) -> Tensor:
    """One call per long sequence, a few calls for all short ones -> [1, heads, T, value_dim]; for CPUs.

    Seven times as fast there as one masked [T, T] call.
    """
    import torch

    if scoring.is_plain:
        attended, long_sequences = attention_cpu.attend(query, key, value, layout, scoring.scale, scoring.window)
        if not long_sequences:
            return attended.transpose(0, 1)[None]
        outputs = list(attended.split(layout.lengths))
    else:
        outputs, long_sequences = [query] * len(layout.lengths), range(len(layout.lengths))  # all are replaced below
    queries, keys, values = (tensor.split(layout.lengths, 2) for tensor in (query, key, value))
    for number in long_sequences:
        context = layout.contexts[number]
        visible_keys, visible_values = (
            torch.cat([tensor[:, :, context], own[number]], 2) if len(context) else own[number]
            for tensor, own in ((key, keys), (value, values))
        )
        blocks = _causal(queries[number], visible_keys, visible_values, scoring)
        outputs[number] = torch.cat([block[0].transpose(0, 1) for block in blocks])
    return torch.cat(outputs).transpose(0, 1)[None]


def by_block_mask(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scoring: Scoring) -> Tensor:
    """FlexAttention, which leaves out blocks that no token attends to -> [1, heads, T, value_dim]; for GPUs.

    Compiled on GPUs. A CPU runs the dense form, which has no backward pass there.
    """
    flex_attention, _ = _flex(query.is_cuda)
    from torch.nn.attention.flex_attention import AuxRequest

    attended, sums = flex_attention(
        query,
        key,
        value,
        score_mod=scoring.softcap and _capped(scoring.softcap, query.device),
        block_mask=_block_mask(layout, scoring.window),
        scale=scoring.scale,
        enable_gqa=key.shape[1] != query.shape[1],
        return_aux=AuxRequest(lse=scoring.sinks is not None),
    )
    if scoring.sinks is None:
        return attended
    # A sink multiplies every weight by sum(exp(scores)) / (sum(exp(scores)) + exp(sink)).
    return attended * (sums.lse - scoring.sinks[:, None]).sigmoid()[..., None].to(attended.dtype)


def by_boundaries(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scoring: Scoring) -> Tensor:
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
        scale=scoring.scale,
        window_size=(-1, 0),  # every earlier token, no later one
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return attended.transpose(0, 1)[None]


def takes_block_mask(query: Tensor, value: Tensor, layout: Layout, scoring: Scoring) -> bool:
    """True if a batch on a GPU is beyond the varlen kernel.

    The kernel takes whole sequences in 16 bits without a window, a cap or sinks; heads of 8, 16, ..., 256 dimensions.
    """
    dim = query.shape[-1]
    plain = scoring.is_plain and scoring.window is None
    heads_fit = dim == value.shape[-1] and dim <= 256 and dim % 8 == 0
    return not (plain and heads_fit and query.element_size() == 2 and layout.are_whole())


def _causal(query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> list[Tensor]:
    """Outputs of queries that are the last tokens of the keys' sequence, cut along the tokens."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    window = scoring.window
    grouped = key.shape[1] != query.shape[1]
    rows, context = query.shape[2], key.shape[2] - query.shape[2]
    if scoring.is_plain and not context and (window is None or rows <= window):
        return [
            scaled_dot_product_attention(query, key, value, is_causal=True, scale=scoring.scale, enable_gqa=grouped)
        ]
    attended = []
    for start in range(0, rows, ROWS):
        end = min(start + ROWS, rows)
        visible = torch.ones(end - start, context + end, dtype=torch.bool).tril(context + start)
        if window is not None:
            visible = visible.triu(context + start - window + 1)
        block = query[:, :, start:end], key[:, :, : context + end], value[:, :, : context + end]
        if scoring.is_plain:
            attended.append(
                scaled_dot_product_attention(*block, attn_mask=visible, scale=scoring.scale, enable_gqa=grouped)
            )
        else:
            attended.append(_capped_attention(*block, visible, scoring))
    return attended


def _capped_attention(query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scoring: Scoring) -> Tensor:
    """Attention with a cap or sinks, from its definition, in float32; for CPUs."""
    import torch

    repeats = query.shape[1] // key.shape[1]
    key, value = (tensor.float().repeat_interleave(repeats, 1) for tensor in (key, value))
    scale = query.shape[3] ** -0.5 if scoring.scale is None else scoring.scale
    scores = query.float() @ key.mT * scale
    if scoring.softcap is not None:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    scores = scores.masked_fill(~visible, float("-inf"))
    if scoring.sinks is not None:
        sinks = scoring.sinks.float()[None, :, None, None].expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], -1)
    weights = scores.softmax(-1)[..., : key.shape[2]]
    return (weights @ value).to(query.dtype)


@lru_cache(maxsize=4)
def _capped(softcap: float, device: torch.device) -> Callable[..., Tensor]:
    import torch

    # A tensor, since under `dynamic` the compiler makes numbers unknowns too, and then cannot translate the function.
    cap = torch.tensor(softcap, device=device)

    def capped(score: Tensor, batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return capped


@lru_cache(maxsize=2)  # the batch at hand; a model may have layers with a window and layers without
def _block_mask(layout: Layout, window: int | None) -> Any:
    """FlexAttention's mask: the [T, T] blocks of 128 x 128 with visible tokens, and the visible tokens in them."""
    import torch

    positions = layout.position_ids
    until = layout.until.to(positions.device)
    limit = None if window is None else torch.tensor(window, device=positions.device)

    def is_visible(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        visible = (row >= column) & (row < until[column])
        return visible if limit is None else visible & (positions[row] - positions[column] < limit)

    _, create_block_mask = _flex(positions.is_cuda)
    return create_block_mask(is_visible, None, None, len(until), len(until), device=positions.device.type)


@lru_cache(maxsize=1)  # of the current batch; every layer asks for them
def _boundaries(layout: Layout) -> Tensor:
    return layout.boundaries()


@lru_cache(maxsize=2)
def _flex(compiled: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if not compiled:
        return flex_attention, create_block_mask
    # Past the limit of compiled variants a call would make all [T, T] scores; `fullgraph` makes that an error.
    compiler: Any = torch.compile
    settings = {"dynamic": True, "fullgraph": True, "recompile_limit": VARIANTS}
    return compiler(flex_attention, **settings), compiler(create_block_mask, **settings)
