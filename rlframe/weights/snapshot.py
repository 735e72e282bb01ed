"""`Snapshot`: a version of the weights, as references into Ray's object store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlframe.weights.shards import ArrivedShard, Bucket, Delta

if TYPE_CHECKING:
    from ray import ObjectRef


@dataclass(frozen=True, slots=True, kw_only=True)
class RankShards:
    """A rank's shards of a version."""

    base: int  # the version of `buckets`
    buckets: list[ObjectRef]  # of Bucket; the n-th bucket of every rank holds shards of the same tensors
    deltas: list[ObjectRef]  # of list[Delta], to apply to the buckets' shards; empty: the buckets are the version
    checksums: list[list[int]]  # [buckets][shards] of this version's values
    names: list[str]  # every tensor of the checkpoint, so that an engine notices a missing tensor
    bytes: int  # that the rank put for this version


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A version of the weights: complete for any engine, whichever versions the engine has loaded or missed."""

    version: int
    ranks: list[RankShards]  # empty where the ranks themselves send the values (weights/transport.py, Broadcast)

    @property
    def names(self) -> list[str]:
        return self.ranks[0].names

    @property
    def lasting(self) -> bool:
        """True where an engine can load the version at any later time."""
        return bool(self.ranks)

    @property
    def bytes(self) -> int:
        """Bytes that all ranks put for this version."""
        return sum(rank.bytes for rank in self.ranks)

    def equals(self, other: Snapshot) -> bool:
        """True if both have the same values, by their checksums; False for values that ranks themselves send."""
        checksums, others = ([rank.checksums for rank in each.ranks] for each in (self, other))
        return self.lasting and checksums == others

    def fetch(self) -> None:
        """Waits until all objects are in this node's part of the object store.

        Raises OwnerDiedError where the rank has died that put an object.
        """
        import ray

        ray.get([ref for rank in self.ranks for ref in (*rank.buckets, *rank.deltas)])  # views: nothing is copied

    def read(self) -> Iterator[list[ArrivedShard]]:
        """Bucket by bucket, all ranks' shards of the same tensors; values are views into the object store."""
        import ray

        for index in range(len(self.ranks[0].buckets)):
            shards: list[ArrivedShard] = []
            for rank in self.ranks:
                bucket: Bucket = ray.get(rank.buckets[index])
                deltas: list[Delta] | list[None] = (
                    ray.get(rank.deltas[index]) if rank.deltas else [None] * len(bucket.headers)
                )
                shards += [
                    ArrivedShard(header, header.values(bucket.payload), delta, checksum)
                    for header, delta, checksum in zip(bucket.headers, deltas, rank.checksums[index], strict=True)
                ]
            yield shards
