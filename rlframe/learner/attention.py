"""Block-causal attention over packed sequences, as an attention implementation of transformers.

A packed batch holds whole sequences end to end, and a token attends only to earlier tokens of its own. The
boundaries travel as `cu_seq_lens_q` [N + 1], the name under which transformers passes them to every
implementation, so `flash_attention_2` can stand in for this one by a config key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

NAME = "rlframe_packed"


def register() -> None:
    """Makes `attn_implementation="rlframe_packed"` known to transformers (its AttentionInterface)."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


def boundaries(sequence_ids: Tensor) -> Tensor:
    """[T] -> [N + 1] int32: where each sequence begins, and the end of the last.

    >>> boundaries(torch.tensor([0, 0, 0, 1, 1])).tolist()
    [0, 3, 5]
    """
    import torch

    lengths = torch.unique_consecutive(sequence_ids, return_counts=True)[1]
    return torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,  # [1, heads, T, head_dim]
    key: Tensor,  # [1, key_value_heads, T, head_dim]
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """-> [1, T, heads, head_dim], and no attention weights."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    if query.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        longest = int(cu_seq_lens_q.diff().max())
        groups = query.shape[1] // key.shape[1]
        rows = [part[0].transpose(0, 1) for part in (query, *(_repeat(kv, groups) for kv in (key, value)))]
        attended = varlen_attn(*rows, cu_seq_lens_q, cu_seq_lens_q, longest, longest, is_causal=True, scale=scaling)
        return attended[None], None

    # One call a sequence: twice as fast on a CPU as a padded grid, and seven times as one masked [T, T] call.
    lengths = cu_seq_lens_q.diff().tolist()
    grouped = key.shape[1] != query.shape[1]
    attended = [
        scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=grouped)
        for q, k, v in zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), strict=True)
    ]
    return torch.cat(attended, dim=2).transpose(1, 2), None


def _repeat(heads: Tensor, times: int) -> Tensor:
    return heads.repeat_interleave(times, dim=1)
