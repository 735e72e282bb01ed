"""Packs a rank's shards of the learner's tensors into buckets on the host."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from rlframe.learner.partition import shard_range
from rlframe.weights.shards import Bucket, ShardHeader

if TYPE_CHECKING:
    from torch import Tensor


class TensorShard(NamedTuple):
    """The values of a tensor that a rank holds: [start, start + size) of the whole tensor's flat order."""

    name: str  # the learner's, before `to_checkpoint`
    shape: tuple[int, ...]  # of the whole tensor
    start: int
    values: Tensor  # [size], in the learner's own memory

    @property
    def tensor_bytes(self) -> int:
        """Bytes of the whole tensor."""
        return math.prod(self.shape) * self.values.dtype.itemsize

    def header(self, offset: int) -> ShardHeader:
        """Describes the shard in a bucket, where the values start at byte `offset`."""
        dtype = str(self.values.dtype).removeprefix("torch.")
        return ShardHeader(
            self.name, dtype, self.shape, self.start, offset, self.values.numel(), self.values.dtype.itemsize
        )


def rank_shards(tensors: dict[str, Any], rank: int) -> list[TensorShard]:
    """The shards that `rank` sends: of every partitioned tensor; of whole tensors (buffers) rank 0 sends all values."""
    shards = []
    for name, tensor in tensors.items():
        if hasattr(tensor, "ds_tensor"):
            shape, start, end = shard_range(tensor)
            shards.append(TensorShard(name, shape, start, tensor.ds_tensor.detach().reshape(-1)[: end - start]))
        else:
            whole = tensor.detach().reshape(-1)
            shards.append(TensorShard(name, tuple(tensor.shape), 0, whole if rank == 0 else whole[:0]))
    return shards


def bucketed(layers: list[list[TensorShard]], tensor_bytes: int) -> list[list[TensorShard]]:
    """Neighbouring layers share a bucket until the whole tensors would exceed `tensor_bytes`.

    Whole tensors are counted so that buckets hold the same tensors on every rank. A layer is never cut, because
    `to_checkpoint` looks at all tensors of a layer. With 32 bytes, layers of 16, 16, 64 and 8 bytes become buckets
    of 16 + 16, 64 and 8 bytes.
    """
    buckets: list[list[TensorShard]] = []
    size = 0
    for layer in layers:
        layer_bytes = sum(shard.tensor_bytes for shard in layer)
        if not buckets or size + layer_bytes > tensor_bytes:
            buckets.append([])
            size = 0
        buckets[-1] += layer
        size += layer_bytes
    return buckets


class HostBuffer:
    """Packs shards into a bucket whose payload is a single array on the host, valid until the next call.

    Shards that are neighbours in the host's memory are not copied: the payload is a view of the learner's own memory.
    """

    def __init__(self) -> None:
        self._buffer: Tensor | None = None  # [bytes], for each bucket in turn

    def pack(self, shards: list[TensorShard]) -> Bucket:
        values = [shard.values for shard in shards]
        payload = _span(values)
        if payload is None:
            payload, offsets = self._copy(values)
        else:
            offsets = [value.data_ptr() - payload.data_ptr() if value.numel() else 0 for value in values]
        headers = [shard.header(offset) for shard, offset in zip(shards, offsets, strict=True)]
        return Bucket(headers, payload.numpy())

    def _copy(self, values: list[Tensor]) -> tuple[Tensor, list[int]]:
        """Payload and offsets; each offset is a multiple of 8, so that a view never cuts a value."""
        import torch

        aligned = [-(-value.nbytes // 8) * 8 for value in values]
        offsets = [0, *accumulate(aligned)]
        on_gpu = values[0].device.type == "cuda"
        if self._buffer is None or len(self._buffer) < offsets[-1]:
            self._buffer = torch.empty(offsets[-1], dtype=torch.uint8, pin_memory=on_gpu)
        for offset, value in zip(offsets, values, strict=False):
            self._buffer[offset : offset + value.nbytes].view(value.dtype).copy_(value, non_blocking=True)
        if on_gpu:
            torch.cuda.synchronize()
        return self._buffer[: offsets[-1]], offsets[:-1]


def _span(values: list[Tensor]) -> Tensor | None:
    """[bytes] from the first value to the last; None unless all are in one storage on the host, nearly without gaps.

    ZeRO-3 stores shards one after another, with an alignment's padding between them; 1 % of gaps may travel.
    """
    import torch

    filled = [value for value in values if value.numel()]
    if not filled or any(value.device.type != "cpu" for value in filled):
        return None
    storage = filled[0].untyped_storage()
    if any(value.untyped_storage().data_ptr() != storage.data_ptr() for value in filled):
        return None
    start = min(value.data_ptr() for value in filled)
    size = max(value.data_ptr() + value.nbytes for value in filled) - start
    if size > 1.01 * sum(value.nbytes for value in filled):
        return None
    span: Any = torch.empty(0, dtype=torch.uint8)
    return span.set_(storage, start - storage.data_ptr(), (size,))
