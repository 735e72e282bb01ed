"""What a rank holds of a module under ZeRO-3: its slice of each parameter, and every buffer whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor, nn


class Place(NamedTuple):
    """Entries [start, end) of the whole parameter, flattened."""

    shape: tuple[int, ...]  # of the whole
    start: int
    end: int


def place(parameter: Any, rank: int) -> Place:
    """What `rank` holds of a parameter that ZeRO-3 has partitioned.

    Each of N ranks has a flat slice, 1/N long; at the end of the whole it is padding in part, or altogether: what is
    padding is not in the Place.
    """
    length = parameter.ds_tensor.numel()
    start = min(rank * length, parameter.ds_numel)
    return Place(tuple(parameter.ds_shape), start, min(start + length, parameter.ds_numel))


def carried_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Those that checkpoints carry (a router's selection bias, not rotary tables)."""
    carried = module.state_dict().keys()
    return {name: buffer for name, buffer in module.named_buffers() if name in carried}
