"""What a rank holds of a module under ZeRO-3: its slice of each parameter, and every buffer whole.

ZeRO-3 gives each of N ranks a flat slice of every parameter, 1/N long and padded at the end. With expert parallelism
(DeepSpeed's AutoEP) a rank has its own experts to begin with, as parameters [experts of the rank, ...], and only the
ranks with the same experts share slices of them. Names are DeepSpeed's then: `experts.w1`, `w2` and `w3`, and
`router.gate` for what transformers calls `gate`. Adapters change names too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    pass


class Place(NamedTuple):
    """Entries [start, end) of the whole parameter, flattened; without the padding of ZeRO-3's last slice."""

    shape: tuple[int, ...]  # of the whole: the experts of all ranks
    start: int
    end: int


def place(parameter: Any) -> Place:
    """What this rank holds of a parameter that ZeRO-3 has partitioned."""
    length = parameter.ds_tensor.numel()
    start = min(parameter.ds_zero_partition_rank * length, parameter.ds_numel)
    end = min(start + length, parameter.ds_numel)
    experts = spread_experts(parameter)
    before = 0 if experts is None else experts["ep_rank"] * parameter.ds_numel
    return Place(whole_shape(parameter), before + start, before + end)


def whole_shape(parameter: Any) -> tuple[int, ...]:
    """The shape over all ranks, also of a tensor that no rank shares."""
    experts = spread_experts(parameter)
    return (
        tuple(getattr(parameter, "ds_shape", parameter.shape)) if experts is None else tuple(experts["logical_shape"])
    )


def spread_experts(parameter: Any) -> dict[str, Any] | None:
    """What DeepSpeed notes at a parameter whose experts are spread over ranks: its whole shape and this rank's part."""
    return getattr(parameter, "ds_autoep_uc_meta", None)
