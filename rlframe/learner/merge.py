"""Merges adapters into the adapted weights, while the weights travel to engines or to disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from rlframe.model.checkpoint_names import ADAPTER

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def merged(module: nn.Module) -> Iterator[None]:
    """Inside, each rank's shard of an adapted W holds W + scale * B A; afterwards W again, to the last bit.

    A collective where the module has adapters; does nothing elsewhere. Every reader of the weights sees merged
    values, so engines run as without adapters. In bfloat16 engines receive W + scale * B A, rounded once.
    """
    from deepspeed.runtime.zero import GatheredParameters

    originals: list[tuple[Tensor, Tensor]] = []  # (shard, copy of the values)
    with torch.no_grad():
        for layer in adapted(module):
            down, up = (getattr(layer, name)[ADAPTER].weight for name in ("lora_A", "lora_B"))
            weight = layer.base_layer.weight
            shard = weight.ds_tensor.data
            originals.append((shard, shard.clone()))
            with GatheredParameters([down, up]):
                rank = torch.distributed.get_rank(group=weight.ds_process_group)
                _add_product(shard, down, up, rank * len(shard), layer.scaling[ADAPTER])
    try:
        yield
    finally:
        for shard, original in originals:
            shard.copy_(original)


def adapted(module: nn.Module) -> list[Any]:
    """The layers with an adapter."""
    return [layer for layer in module.modules() if ADAPTER in getattr(layer, "lora_A", {})]


def _add_product(shard: Tensor, down: Tensor, up: Tensor, start: int, scale: float) -> None:
    """Adds scale * B A to a shard from entry `start` on. With offloaded parameters the shard alone is on the host."""
    change = _product(down, up, start, start + len(shard)) * scale
    unpadded = shard[: len(change)]
    unpadded.copy_(unpadded.float() + change.to(shard.device))


def _product(down: Tensor, up: Tensor, start: int, end: int) -> Tensor:
    """Entries [start, end) of B A flattened, in float32; fewer entries where B A ends earlier.

    A (`down`) [rank, in], B (`up`) [out, rank], B A [out, in]. Only the rows of B A that hold the entries are computed.
    """
    width = down.shape[1]
    first, last = start // width, -(-end // width)
    product = (up[first:last].float() @ down.float()).reshape(-1)
    return product[start - first * width : end - first * width]
