"""A tensor's shards in transit. The learner packs shards into buckets, and an engine rebuilds tensors from buckets.

A *shard* is a rank's part of a tensor, a *bucket* holds shards of the same rank that travel together, and a *delta*
holds the values of a shard that changed. ZeRO-3 cuts every tensor, in flat order, into a shard for each rank. Nothing
is gathered among the ranks:

    tensor w, shape (7,), 2 ranks      rank 0: start 0, values w0 w1 w2 w3      rank 1: start 4, values w4 w5 w6
    delta after w4 and w6 changed      rank 0: nothing                          rank 1: indices 0 2, values w4' w6'
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np

BITS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}  # item size -> dtype of bits; NumPy has no bfloat16


class ShardHeader(NamedTuple):
    """Describes a shard: the position in the bucket's bytes, and the position in the whole tensor."""

    name: str  # the learner's name of the tensor, before `to_checkpoint`
    dtype: str  # torch's name: "bfloat16"
    shape: tuple[int, ...]  # of the whole tensor
    start: int  # index of the first value, in the whole tensor's flat order
    offset: int  # in the bucket, in bytes
    size: int  # values
    itemsize: int  # bytes of a value

    def values(self, payload: np.ndarray) -> np.ndarray:
        """[size] BITS: the shard's values, a view of the bucket's payload [bytes] uint8."""
        return payload[self.offset : self.offset + self.size * self.itemsize].view(BITS[self.itemsize])


class Bucket(NamedTuple):
    """Shards of several tensors from the same rank. All bytes are one array: many small arrays are slower to copy."""

    headers: list[ShardHeader]
    payload: np.ndarray  # [bytes] uint8


class Delta(NamedTuple):
    """The values of a shard that changed since the shard traveled whole."""

    indices: np.ndarray  # [changes] in the shard, of the narrowest unsigned dtype for the shard's size
    values: np.ndarray  # [changes] BITS

    @property
    def nbytes(self) -> int:
        return self.indices.nbytes + self.values.nbytes


class ArrivedShard(NamedTuple):
    """A shard at an engine: old values, changes, and the checksum for verification."""

    header: ShardHeader
    values: np.ndarray  # [size] BITS, before the delta
    delta: Delta | None
    checksum: int  # of the learner's values, which are the values after the delta


def checksum(values: np.ndarray) -> int:
    """xxh3, 64 bits."""
    import xxhash

    return xxhash.xxh3_64_intdigest(cast(Any, values))  # takes any buffer
