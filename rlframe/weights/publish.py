"""Each rank's slices of the weights -> a few large objects in Ray's object store, for engines to read in place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rlframe.calls import numbered, wait
from rlframe.types import Loaded
from rlframe.weights.slices import Patch, Run, Slice, chunked, cut, difference, held_runs

if TYPE_CHECKING:
    import numpy as np
    from ray import ObjectRef
    from ray.actor import ActorHandle
    from torch import Tensor

    from rlframe.weights.source import Zero3Source


class Share(NamedTuple):
    """One rank's part of one version, as references."""

    base: int  # the version of `slices`
    slices: list[ObjectRef]  # of list[Slice], chunk by chunk; every rank's chunk holds parts of the same tensors
    patches: list[ObjectRef]  # of list[Patch], to be laid over the slices; empty: these are the version itself
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

    def read(self) -> Iterator[list[tuple[Slice, Patch | None]]]:
        """Chunk by chunk, all ranks' slices of its tensors, each with its patch; views into the object store."""
        import ray

        for chunk in range(len(self.shares[0].slices)):
            parts: list[tuple[Slice, Patch | None]] = []
            for share in self.shares:
                slices: list[Slice] = ray.get(share.slices[chunk])
                patches: list[Patch] | list[None] = (
                    ray.get(share.patches[chunk]) if share.patches else [None] * len(slices)
                )
                parts += zip(slices, patches, strict=True)
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


class Publisher:
    """One rank's end. It puts what the rank holds and takes part in no collective.

    Plasma writes fast only into pages that were touched before. Objects keep their sizes from version to version, so
    each takes the place of one two versions back, once nobody holds that any more.
    """

    def __init__(self, source: Zero3Source, rank: int, *, chunk_bytes: int, ranks: int, full_every: int) -> None:
        """`chunk_bytes`: of an object; `full_every`: versions from one that travels whole to the next.

        Between these only changes since the last whole version travel, when they are fewer bytes. That version
        stays in the object store meanwhile: changes are found by comparing with it, and laid over it by engines.
        """
        self._source = source
        self._names = [name for group in source.groups() for name in group]
        self._rank = rank
        self._whole_bytes = chunk_bytes * ranks  # of the tensors of one chunk
        self._full_every = full_every
        self._host = _Host()
        self._base: Share | None = None  # of the last whole version

    def publish(self, version: int, *, whole: bool) -> Share:
        # Anew each time: loading a checkpoint may have put other tensors in their places.
        runs_of = chunked([held_runs(layer, self._rank) for layer in self._source.layers()], self._whole_bytes)
        if not whole and self._base is not None and 0 < version - self._base.base < self._full_every:
            patches = self._changes(self._base, runs_of)
            if patches is not None:
                size = sum(patch.nbytes for chunk in patches for patch in chunk)
                return self._base._replace(patches=_put(patches), bytes=size)
        self._base = None  # lets go of the old version before the new one needs its place
        chunks = ([cut(run, values) for run, values in zip(runs, self._host(runs), strict=True)] for runs in runs_of)
        size = sum(run.values.nbytes for runs in runs_of for run in runs)
        share = Share(base=version, slices=_put(chunks), patches=[], names=self._names, bytes=size)
        if self._full_every > 1:
            self._base = share
        return share

    def _changes(self, base: Share, runs_of: list[list[Run]]) -> list[list[Patch]] | None:
        """By chunk, what has changed since `base`; None where that would be more bytes than all values."""
        import ray

        left = base.bytes
        chunks = []
        for runs, ref in zip(runs_of, base.slices, strict=True):
            slices: list[Slice] = ray.get(ref)
            pairs = zip(slices, self._host(runs), strict=True)
            chunks.append([difference(before.values, values) for before, values in pairs])
            left -= sum(patch.nbytes for patch in chunks[-1])
            if left <= 0:
                return None
        return chunks


class _Host:
    """Bits of values on the host: views where they lie there, else copies, valid until the next call."""

    def __init__(self) -> None:
        self._pinned: Tensor | None = None  # one chunk's, used again and again

    def __call__(self, runs: list[Run]) -> list[np.ndarray]:
        import torch

        values = [run.values for run in runs]
        if values[0].device.type != "cpu":
            aligned = [-(-value.nbytes // 8) * 8 for value in values]
            if self._pinned is None or len(self._pinned) < sum(aligned):
                self._pinned = torch.empty(sum(aligned), dtype=torch.uint8, pin_memory=True)
            places = self._pinned[: sum(aligned)].split(aligned)
            on_host = [place[: value.nbytes].view(value.dtype) for place, value in zip(places, values, strict=True)]
            for place, value in zip(on_host, values, strict=True):
                place.copy_(value, non_blocking=True)
            torch.cuda.synchronize()
            values = on_host
        words = {1: torch.uint8, 2: torch.uint16, 4: torch.uint32, 8: torch.uint64}
        return [value.contiguous().view(words[value.dtype.itemsize]).numpy() for value in values]


def _put(chunks) -> list[ObjectRef]:
    import ray

    return [ray.put(chunk) for chunk in chunks]
