"""Each rank's slices of the weights -> a few large objects in Ray's object store, for engines to read in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rlframe.actors.calls import numbered, wait
from rlframe.types import Loaded
from rlframe.weights.slices import Part, Patch, Slice

if TYPE_CHECKING:
    import numpy as np
    from ray import ObjectRef
    from ray.actor import ActorHandle


class Chunk(NamedTuple):
    """One rank's part of some tensors; its bytes are one array, for many small ones are slower to copy."""

    slices: list[Slice]
    data: np.ndarray  # [bytes] uint8


class Share(NamedTuple):
    """One rank's part of one version, as references."""

    base: int  # the version of `slices`
    slices: list[ObjectRef]  # of Chunk; every rank's first, second, ... chunk holds parts of the same tensors
    patches: list[ObjectRef]  # of list[Patch], to be laid over the slices; empty: these are the version itself
    digests: list[list[int]]  # [chunks][slices] of this version's values
    names: list[str]  # every tensor in checkpoints, so that an engine can tell that one is missing
    bytes: int  # put for this version


class Snapshot(NamedTuple):
    """One version of the weights, as references: all that an engine needs, whatever it holds or has missed."""

    version: int
    shares: list[Share]  # by rank

    def fetch(self) -> None:
        """Waits until everything lies in this node's part of the object store."""
        import ray

        refs = [ref for share in self.shares for ref in (*share.slices, *share.patches)]
        ray.wait(refs, num_returns=len(refs), fetch_local=True)

    def read(self) -> Iterator[list[Part]]:
        """Chunk by chunk, all ranks' slices of its tensors, each with its patch; views into the object store."""
        import ray

        for place in range(len(self.shares[0].slices)):
            parts: list[Part] = []
            for share in self.shares:
                chunk: Chunk = ray.get(share.slices[place])
                patches: list[Patch] | list[None] = (
                    ray.get(share.patches[place]) if share.patches else [None] * len(chunk.slices)
                )
                of_slices = zip(chunk.slices, patches, share.digests[place], strict=True)
                parts += [Part(slice_, slice_.of(chunk.data), patch, digest) for slice_, patch, digest in of_slices]
            yield parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A snapshot on the driver, with the ranks that it came from."""

    snapshot: Snapshot
    ranks: list[ActorHandle]

    @property
    def version(self) -> int:
        return self.snapshot.version

    @property
    def names(self) -> list[str]:
        return self.snapshot.shares[0].names

    @property
    def bytes(self) -> int:
        """Put for this version, by all ranks."""
        return sum(share.bytes for share in self.snapshot.shares)

    def deliver(self, engines: dict[str, ActorHandle], timeout_s: float) -> dict[str, Loaded]:
        """Lets every engine (by name) load this version, all at the same time. Raises Stalled."""
        loading = {name: engine.load.remote(self.snapshot) for name, engine in engines.items()}
        answers = wait(loading, f"load version {self.version}", timeout_s, "cluster.stall_timeout_s")
        return dict(zip(engines, answers, strict=True))

    def anew(self, timeout_s: float) -> Published:
        """The same version, every value of it put once more. Raises Stalled."""
        return publish(self.ranks, self.version, timeout_s, whole=True)


def publish(ranks: list[ActorHandle], version: int, timeout_s: float, *, whole: bool = False) -> Published:
    """Lets every rank put its share; `whole`: every value, also where changes would do. Raises Stalled."""
    putting = numbered("learner", [rank.publish.remote(version, whole=whole) for rank in ranks])
    shares = wait(putting, f"publish version {version}", timeout_s, "cluster.stall_timeout_s")
    return Published(snapshot=Snapshot(version, shares), ranks=ranks)
