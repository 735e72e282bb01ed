"""Where a rank's shards lie under ZeRO-3: a range of each flattened parameter. Every rank has all buffers whole.

ZeRO-3 gives each of N ranks 1/N of every flattened parameter, padded at the end. With expert parallelism (DeepSpeed's
AutoEP) a rank has parameters [experts of the rank, ...] to begin with, and only the ranks with the same experts share
their shards. DeepSpeed then renames parameters: `experts.w1`, `w2` and `w3`, and `router.gate` for transformers'
`gate`. Adapters change names too.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class ShardRange(NamedTuple):
    """Entries [start, end) of a whole flattened parameter, without the padding of ZeRO-3's last shard.

    A parameter of 5 entries on 3 ranks: (0, 2), (2, 4), (4, 5).
    """

    shape: tuple[int, ...]  # of the whole parameter, with the experts of all ranks
    start: int
    end: int


def shard_range(parameter: Any) -> ShardRange:
    """The range of a partitioned parameter that this rank has."""
    length = parameter.ds_tensor.numel()
    start = min(parameter.ds_zero_partition_rank * length, parameter.ds_numel)
    end = min(start + length, parameter.ds_numel)
    experts = spread_experts(parameter)
    offset = 0 if experts is None else experts["ep_rank"] * parameter.ds_numel
    return ShardRange(whole_shape(parameter), offset + start, offset + end)


def whole_shape(parameter: Any) -> tuple[int, ...]:
    """The shape over all ranks; of a tensor without shards its own shape."""
    experts = spread_experts(parameter)
    return (
        tuple(getattr(parameter, "ds_shape", parameter.shape)) if experts is None else tuple(experts["logical_shape"])
    )


def spread_experts(parameter: Any) -> dict[str, Any] | None:
    """DeepSpeed's note on a parameter whose experts are spread over ranks: its whole shape and this rank's number."""
    return getattr(parameter, "ds_autoep_uc_meta", None)
