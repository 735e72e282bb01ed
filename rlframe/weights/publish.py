"""Whole layers -> a few large objects in Ray's object store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rlframe.calls import numbered, wait

if TYPE_CHECKING:
    import ray
    from ray.actor import ActorHandle
    from torch import Tensor

    from rlframe.weights.source import Zero3Source


class Entry(NamedTuple):
    """Where a tensor lies in a chunk's bytes."""

    name: str
    dtype: str  # torch's name for it: "bfloat16"
    shape: tuple[int, ...]
    offset: int  # bytes


class Chunk(NamedTuple):
    """Some tensors of one version, end to end; read in place by every engine of a node."""

    entries: list[Entry]
    data: np.ndarray  # [bytes] uint8


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """One version of the weights in the object store: references only, so it may pass through the driver."""

    version: int
    chunks: list[ray.ObjectRef]  # of Chunk
    names: list[str]  # every tensor, so that an engine can tell that one is missing
    bytes: int

    def deliver(self, engines: list[ActorHandle], timeout_s: float) -> None:
        """Lets every engine load this version, all at the same time. Raises Stalled."""
        loading = numbered("rollout", [engine.load.remote(self) for engine in engines])
        wait(loading, f"load version {self.version}", timeout_s, "cluster.stall_timeout_s")


def publish(source: Zero3Source, version: int, chunk_bytes: int, *, keep: bool) -> Published | None:
    """Gathers layer by layer and puts a chunk whenever `chunk_bytes` have come together.

    All ranks call it; the one with `keep` puts and answers, the others only take part in the gathering.
    """
    import ray

    refs: list[ray.ObjectRef] = []
    names: list[str] = []
    total = 0
    pending = _Buffer()
    for group, tensors in source.iter_groups():
        if not keep:
            continue
        for name, tensor in zip(group, tensors, strict=True):
            if pending.size and pending.size + tensor.nbytes > chunk_bytes:
                refs.append(ray.put(pending.chunk()))
                pending = _Buffer()
            pending.add(name, tensor)
            names.append(name)
            total += tensor.nbytes
    if not keep:
        return None
    refs.append(ray.put(pending.chunk()))
    return Published(version=version, chunks=refs, names=names, bytes=total)


class _Buffer:
    """A chunk in the making."""

    ALIGNMENT = 64  # bytes; readers view the data as tensors in place

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.parts: list[np.ndarray] = []
        self.size = 0

    def add(self, name: str, tensor: Tensor) -> None:
        import torch

        data = tensor.contiguous().cpu().reshape(-1).view(torch.uint8).numpy()
        padding = -len(data) % self.ALIGNMENT
        self.entries.append(Entry(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), self.size))
        self.parts.append(data.copy())
        if padding:
            self.parts.append(np.zeros(padding, np.uint8))
        self.size += len(data) + padding

    def chunk(self) -> Chunk:
        return Chunk(self.entries, np.concatenate(self.parts))
