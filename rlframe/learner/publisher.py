"""One rank's end of the weight sync: its slices of every tensor, put into Ray's object store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import TYPE_CHECKING

from rlframe.learner.partition import shard_range
from rlframe.weights.publish import Chunk, Share
from rlframe.weights.slices import Run, cut, difference, digests

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.learner.source import Zero3Source


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
        self._thread = ThreadPoolExecutor(1)  # checksums, while the main thread copies or compares
        self._base: Share | None = None  # of the last whole version

    def publish(self, version: int, *, whole: bool) -> Share:
        # Anew each time: loading a checkpoint may have put other tensors in their places.
        runs_of = chunked([held_runs(layer, self._rank) for layer in self._source.layers()], self._whole_bytes)
        if not whole and self._base is not None and 0 < version - self._base.base < self._full_every:
            share = self._changes(self._base, runs_of)
            if share is not None:
                return share
        self._base = None  # lets go of the old version before the new one needs its place
        share = self._whole(version, runs_of)
        if self._full_every > 1:
            self._base = share
        return share

    def _whole(self, version: int, runs_of: list[list[Run]]) -> Share:
        import ray

        refs, digests_of = [], []
        for runs in runs_of:
            chunk = self._host(runs)
            checking = self._thread.submit(digests, chunk.data, chunk.slices)
            refs.append(ray.put(chunk))
            digests_of.append(checking.result())  # before the host's bytes are another chunk's
        size = sum(run.values.nbytes for runs in runs_of for run in runs)
        return Share(base=version, slices=refs, patches=[], digests=digests_of, names=self._names, bytes=size)

    def _changes(self, base: Share, runs_of: list[list[Run]]) -> Share | None:
        """What has changed since `base`; None where that would be more bytes than all values."""
        import ray

        left = base.bytes
        patches_of, digests_of = [], []
        for runs, ref in zip(runs_of, base.slices, strict=True):
            before: Chunk = ray.get(ref)
            now = self._host(runs)
            checking = self._thread.submit(digests, now.data, now.slices)
            pairs = zip(before.slices, now.slices, strict=True)
            patches_of.append([difference(old.of(before.data), new.of(now.data)) for old, new in pairs])
            digests_of.append(checking.result())
            left -= sum(patch.nbytes for patch in patches_of[-1])
            if left <= 0:
                return None
        refs = [ray.put(patches) for patches in patches_of]
        return base._replace(patches=refs, digests=digests_of, bytes=base.bytes - left)


class _Host:
    """A chunk's bytes on the host in one piece: a view where they lie so, else copied, valid until the next call."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None  # [bytes], for one chunk after the other

    def __call__(self, runs: list[Run]) -> Chunk:
        values = [run.values for run in runs]
        span = _span(values)
        if span is None:
            span, offsets = self._copied(values)
        else:
            offsets = [value.data_ptr() - span.data_ptr() if value.numel() else 0 for value in values]
        return Chunk([cut(run, offset) for run, offset in zip(runs, offsets, strict=True)], span.numpy())

    def _copied(self, values: list[Tensor]) -> tuple[Tensor, list[int]]:
        import torch

        aligned = [-(-value.nbytes // 8) * 8 for value in values]
        offsets = [0, *accumulate(aligned)]
        on_gpu = values[0].device.type == "cuda"
        if self._buffer is None or len(self._buffer) < offsets[-1]:
            self._buffer = torch.empty(offsets[-1], dtype=torch.uint8, pin_memory=on_gpu)
        for offset, value in zip(offsets, values, strict=False):
            place = self._buffer[offset : offset + value.nbytes].view(value.dtype)
            place.copy_(value, non_blocking=True)
        if on_gpu:
            torch.cuda.synchronize()
        return self._buffer[: offsets[-1]], offsets[:-1]


def _span(values: list[Tensor]) -> Tensor | None:
    """[bytes] from the first to the last, where all lie in one storage on the host with next to nothing between.

    ZeRO-3 lays what it partitions one after the other, with at most an alignment's padding.
    """
    import torch

    held = [value for value in values if value.numel()]
    if not held or any(value.device.type != "cpu" for value in held):
        return None
    storage = held[0].untyped_storage()
    if any(value.untyped_storage().data_ptr() != storage.data_ptr() for value in held):
        return None
    begin = min(value.data_ptr() for value in held)
    size = max(value.data_ptr() + value.nbytes for value in held) - begin
    if size > 1.01 * sum(value.nbytes for value in held):
        return None
    return torch.empty(0, dtype=torch.uint8).set_(storage, begin - storage.data_ptr(), (size,))


def held_runs(tensors: dict[str, Tensor], rank: int) -> list[Run]:
    """The runs that `rank` sends: its part of what ZeRO-3 has partitioned; rank 0 also what every rank has whole."""
    runs = []
    for name, tensor in tensors.items():
        if hasattr(tensor, "ds_tensor"):
            shape, start, end = shard_range(tensor)
            runs.append(Run(name, shape, start, tensor.ds_tensor.detach().reshape(-1)[: end - start]))
        else:
            whole = tensor.detach().reshape(-1)
            runs.append(Run(name, tuple(tensor.shape), 0, whole if rank == 0 else whole[:0]))
    return runs


def chunked(layers: list[list[Run]], whole_bytes: int) -> list[list[Run]]:
    """Neighbouring layers together until their whole tensors would exceed `whole_bytes`.

    That makes chunks of the same tensors on every rank. A layer stays whole: `to_checkpoint` looks at all of it.
    """
    chunks: list[list[Run]] = []
    size = 0
    for layer in layers:
        more = sum(run.whole_bytes for run in layer)
        if not chunks or size + more > whole_bytes:
            chunks.append([])
            size = 0
        chunks[-1] += layer
        size += more
    return chunks
