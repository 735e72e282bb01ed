"""What one ZeRO-3 rank holds of every tensor, and whole tensors rebuilt from what all ranks hold.

ZeRO-3 cuts each parameter, in flat order, into one run of values a rank. Those runs travel as they are: nothing is
gathered among the ranks, and whoever loads the weights puts the runs together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import xxhash

if TYPE_CHECKING:
    from torch import Tensor

WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}  # bytes of a value -> its bits; NumPy has no bfloat16


class Run(NamedTuple):
    """Which values of a tensor a rank holds: `count` of them from `start` on, in the whole tensor's flat order."""

    name: str  # the learner's own, before `to_checkpoint`
    shape: tuple[int, ...]  # of the whole tensor
    start: int
    values: Tensor  # [count], where the learner keeps them

    @property
    def whole_bytes(self) -> int:
        return math.prod(self.shape) * self.values.dtype.itemsize


class Slice(NamedTuple):
    """A run on its way, with its checksum."""

    name: str
    dtype: str  # torch's name for it: "bfloat16"
    shape: tuple[int, ...]
    start: int
    values: np.ndarray  # [count] WORDS
    digest: int  # xxh3 (64 bits) of the values


class Patch(NamedTuple):
    """What has changed in a slice since it travelled whole."""

    indices: np.ndarray  # [changes] in the slice, of the narrowest unsigned type that reaches its end
    values: np.ndarray  # [changes] WORDS
    digest: int  # of the slice with the changes in it

    @property
    def nbytes(self) -> int:
        return self.indices.nbytes + self.values.nbytes


def held_runs(tensors: dict[str, Tensor], rank: int) -> list[Run]:
    """The runs that `rank` sends: its part of what ZeRO-3 has partitioned; rank 0 also what every rank has whole.

    The last rank's part of a parameter may be padding in part, or altogether: then its run has no values.
    """
    runs = []
    for name, tensor in tensors.items():
        if hasattr(tensor, "ds_tensor"):
            part = tensor.ds_tensor.detach().reshape(-1)
            start = min(rank * part.numel(), tensor.ds_numel)
            runs.append(Run(name, tuple(tensor.ds_shape), start, part[: tensor.ds_numel - start]))
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


def cut(run: Run, values: np.ndarray) -> Slice:
    """`values`: the run's own, on the host."""
    dtype = str(run.values.dtype).removeprefix("torch.")
    return Slice(run.name, dtype, run.shape, run.start, values, digest(values))


def difference(base: np.ndarray, values: np.ndarray) -> Patch:
    """What turns `base` into `values`, bit for bit; both [count]."""
    indices = np.flatnonzero(base != values)
    return Patch(indices.astype(np.min_scalar_type(len(base))), values[indices], digest(values))


def digest(values: np.ndarray) -> int:
    return xxhash.xxh3_64_intdigest(values)


def rebuild(parts: Iterable[tuple[Slice, Patch | None]]) -> tuple[dict[str, Tensor], set[str]]:
    """All ranks' slices of some tensors, with their patches -> whole tensors by name, and which of them are not
    what the learner holds, by the checksums.

    A tensor that one unpatched slice holds whole is a read-only view of it, any other a copy.
    Raises RuntimeError where a part of a tensor is missing.
    """
    by_name: dict[str, list[tuple[Slice, Patch | None]]] = {}
    for part in parts:
        by_name.setdefault(part[0].name, []).append(part)
    tensors, differing = {}, set()
    for name, own in by_name.items():
        slice_, patch = own[0]
        count = math.prod(slice_.shape)
        if (present := sum(len(part.values) for part, _ in own)) != count:
            raise RuntimeError(f"{name} has {present} of its {count} values")
        if patch is None and len(slice_.values) == count:
            values, same = slice_.values, digest(slice_.values) == slice_.digest
        else:
            values = np.empty(count, slice_.values.dtype)
            same = all([_place(values, *part) for part in own])
        tensors[name] = _as_tensor(values, slice_)
        if not same:
            differing.add(name)
    return tensors, differing


def _place(whole: np.ndarray, slice_: Slice, patch: Patch | None) -> bool:
    """Copies a slice, patched, to its place -> whether the checksum holds there."""
    here = whole[slice_.start : slice_.start + len(slice_.values)]
    np.copyto(here, slice_.values)
    if patch is not None and len(patch.indices):
        np.put(here, patch.indices, patch.values, mode="clip")  # a broken index is found by the checksum
    return digest(here) == (slice_ if patch is None else patch).digest


def _as_tensor(values: np.ndarray, slice_: Slice) -> Tensor:
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # plasma is read-only and nothing here writes: loaders copy out of it
        return torch.from_numpy(values).view(getattr(torch, slice_.dtype)).view(slice_.shape)
