"""Adapters merged into the weights that they adapt, for as long as these are on their way to engines or to disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from rlframe.model.checkpoint_names import ADAPTER

if TYPE_CHECKING:
    from torch import Tensor, nn


@contextmanager
def merged(module: nn.Module) -> Iterator[None]:
    """Inside, each rank's slice of an adapted weight is that of W + scale * B A; afterwards it is W's to the last bit.

    A collective where there are adapters, nothing at all elsewhere. Any way to read the weights sees them merged, and
    every engine runs as it would without adapters; in bfloat16 it gets W + scale * B A rounded once.
    """
    from deepspeed.runtime.zero import GatheredParameters

    before: list[tuple[Tensor, Tensor]] = []
    with torch.no_grad():
        for layer in adapted(module):
            down, up = (getattr(layer, name)[ADAPTER].weight for name in ("lora_A", "lora_B"))
            weight = layer.base_layer.weight
            held = weight.ds_tensor.data
            before.append((held, held.clone()))
            with GatheredParameters([down, up]):
                rank = torch.distributed.get_rank(group=weight.ds_process_group)
                change = _rows(down, up, rank * len(held), (rank + 1) * len(held)) * layer.scaling[ADAPTER]
            mine = held[: len(change)]
            mine.copy_(mine.float() + change)
    try:
        yield
    finally:
        for held, original in before:
            held.copy_(original)


def adapted(module: nn.Module) -> list[nn.Module]:
    """Every layer that has an adapter."""
    return [layer for layer in module.modules() if ADAPTER in getattr(layer, "lora_A", {})]


def _rows(down: Tensor, up: Tensor, start: int, end: int) -> Tensor:
    """Entries [start, end) of B A flattened, in float32: only the rows that they lie in are computed.

    A [rank, in], B [out, rank]; B A [out, in]. Fewer entries where B A has no more.
    """
    width = down.shape[1]
    first, last = start // width, -(-end // width)
    product = (up[first:last].float() @ down.float()).reshape(-1)
    return product[start - first * width : end - first * width]
