"""`Publisher`: puts a rank's shards of every tensor into Ray's object store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rlframe.learner.buckets import HostBuffer, TensorShard, bucketed, rank_shards
from rlframe.weights.shards import Bucket, Delta, checksum
from rlframe.weights.snapshot import RankShards

if TYPE_CHECKING:
    from rlframe.learner.source import AdapterSource, Zero3Source


class Publisher:
    """Publishes a rank's shards. Takes part in no collective.

    The object store (Plasma) writes fast only into pages that were touched before. Buckets keep their sizes from
    version to version, so each takes the memory of a bucket two versions back, once nobody holds that version.
    """

    def __init__(
        self, source: Zero3Source | AdapterSource, rank: int, *, bucket_bytes: int, ranks: int, full_every: int
    ) -> None:
        """`bucket_bytes`: of a rank's bucket. `full_every`: versions from a whole version to the next whole version.

        Between two whole versions only deltas from the first whole version travel, if deltas are fewer bytes. The whole
        version stays in the object store meanwhile, for ranks to compare with and for engines to apply deltas to.
        """
        self._source = source
        self._names = [name for group in source.groups() for name in group]
        self._rank = rank
        self._tensor_bytes = bucket_bytes * ranks  # whole tensors of a bucket
        self._full_every = full_every
        self._host = HostBuffer()
        self._thread = ThreadPoolExecutor(1)  # computes checksums while the main thread copies or compares
        self._base: RankShards | None = None  # the last whole version

    def publish(self, version: int, *, whole: bool) -> RankShards:
        """Puts the rank's shards; `whole`: every value, also where deltas would do."""
        # Shards are collected anew each time: loading a checkpoint may replace the learner's tensors.
        layers = [rank_shards(layer, self._rank) for layer in self._source.layers()]
        buckets = bucketed(layers, self._tensor_bytes)
        if not whole and self._base is not None and 0 < version - self._base.base < self._full_every:
            deltas = self._put_deltas(self._base, buckets)
            if deltas is not None:
                return deltas
        self._base = None  # frees the old version's memory for the new version
        shards = self._put_buckets(version, buckets)
        if self._full_every > 1:
            self._base = shards
        return shards

    def _put_buckets(self, version: int, buckets: list[list[TensorShard]]) -> RankShards:
        import ray

        refs, checksums = [], []
        for shards in buckets:
            bucket = self._host.pack(shards)
            pending = self._thread.submit(shard_checksums, bucket)
            refs.append(ray.put(bucket))
            checksums.append(pending.result())  # the next bucket overwrites the payload
        size = sum(shard.values.nbytes for shards in buckets for shard in shards)
        return RankShards(base=version, buckets=refs, deltas=[], checksums=checksums, names=self._names, bytes=size)

    def _put_deltas(self, base: RankShards, buckets: list[list[TensorShard]]) -> RankShards | None:
        """Deltas from `base`; None where deltas would be more bytes than all values."""
        import ray

        deltas, checksums = [], []
        size = 0
        for shards, ref in zip(buckets, base.buckets, strict=True):
            old: Bucket = ray.get(ref)
            new = self._host.pack(shards)
            pending = self._thread.submit(shard_checksums, new)
            headers = zip(old.headers, new.headers, strict=True)
            deltas.append([delta(before.values(old.payload), after.values(new.payload)) for before, after in headers])
            checksums.append(pending.result())
            size += sum(shard_delta.nbytes for shard_delta in deltas[-1])
            if size >= base.bytes:
                return None
        return replace(base, deltas=[ray.put(bucket) for bucket in deltas], checksums=checksums, bytes=size)


def delta(base: np.ndarray, values: np.ndarray) -> Delta:
    """The changes that turn the bits of `base` into `values`; both [size].

    >>> delta(np.array([1, 2, 3], np.uint16), np.array([1, 7, 3], np.uint16))
    Delta(indices=array([1], dtype=uint8), values=array([7], dtype=uint16))
    """
    indices = np.flatnonzero(base != values)
    return Delta(indices.astype(np.min_scalar_type(len(base))), values[indices])


def shard_checksums(bucket: Bucket) -> list[int]:
    """A checksum for each shard of the bucket."""
    return [checksum(header.values(bucket.payload)) for header in bucket.headers]
