"""What one ZeRO-3 rank holds of every tensor, and whole tensors rebuilt from what all ranks hold.

ZeRO-3 cuts each parameter, in flat order, into one run of values a rank. Those runs travel as they are: nothing is
gathered among the ranks, and whoever loads the weights puts the runs together.
"""

from __future__ import annotations

import math
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
    """A run on its way: where its values lie among the bytes of its chunk, and where they belong."""

    name: str
    dtype: str  # torch's name for it: "bfloat16"
    shape: tuple[int, ...]  # of the whole tensor
    start: int  # of the values, in the whole tensor's flat order
    offset: int  # in the chunk, in bytes
    count: int
    itemsize: int  # bytes of a value

    def of(self, chunk: np.ndarray) -> np.ndarray:
        """[count] WORDS: the values, a view of the chunk's [bytes] uint8."""
        return chunk[self.offset : self.offset + self.count * self.itemsize].view(WORDS[self.itemsize])


class Patch(NamedTuple):
    """What has changed in a slice since it travelled whole."""

    indices: np.ndarray  # [changes] in the slice, of the narrowest unsigned type that reaches its end
    values: np.ndarray  # [changes] WORDS

    @property
    def nbytes(self) -> int:
        return self.indices.nbytes + self.values.nbytes


class Part(NamedTuple):
    """A slice that has arrived."""

    slice: Slice
    values: np.ndarray  # [count] WORDS, before the patch
    patch: Patch | None
    digest: int  # what the learner's values, so after the patch, have


def cut(run: Run, offset: int) -> Slice:
    dtype = str(run.values.dtype).removeprefix("torch.")
    return Slice(run.name, dtype, run.shape, run.start, offset, run.values.numel(), run.values.dtype.itemsize)


def difference(base: np.ndarray, values: np.ndarray) -> Patch:
    """What turns `base` into `values`, bit for bit; both [count]."""
    indices = np.flatnonzero(base != values)
    return Patch(indices.astype(np.min_scalar_type(len(base))), values[indices])


def digests(chunk: np.ndarray, slices: list[Slice]) -> list[int]:
    """xxh3 (64 bits) of each slice's values."""
    return [xxhash.xxh3_64_intdigest(slice_.of(chunk)) for slice_ in slices]


def rebuild(parts: list[Part]) -> dict[str, Tensor]:
    """All ranks' slices of some tensors, with their patches -> whole tensors by name.

    A tensor that one unpatched slice holds whole is a read-only view of it, any other a copy.
    Raises RuntimeError where a part of a tensor is missing.
    """
    by_name: dict[str, list[Part]] = {}
    for part in parts:
        by_name.setdefault(part.slice.name, []).append(part)
    tensors = {}
    for name, own in by_name.items():
        first = own[0]
        count = math.prod(first.slice.shape)
        if (present := sum(part.slice.count for part in own)) != count:
            raise RuntimeError(f"{name} has {present} of its {count} values")
        if first.patch is None and first.slice.count == count:
            values = first.values
        else:
            values = np.empty(count, first.values.dtype)
            for part in own:
                _place(values, part)
        tensors[name] = _as_tensor(values, first.slice)
    return tensors


def differing(parts: list[Part], tensors: dict[str, Tensor]) -> set[str]:
    """Which of the `tensors` rebuilt from `parts` are not what the learner holds, by the checksums."""
    import torch

    found = set()
    for slice_, _, _, digest in parts:
        values = tensors[slice_.name].reshape(-1)[slice_.start : slice_.start + slice_.count]
        if xxhash.xxh3_64_intdigest(values.view(torch.uint8).numpy()) != digest:
            found.add(slice_.name)
    return found


def _place(whole: np.ndarray, part: Part) -> None:
    """Copies a slice, patched, to its place."""
    here = whole[part.slice.start : part.slice.start + part.slice.count]
    np.copyto(here, part.values)
    if part.patch is not None and len(part.patch.indices):
        np.put(here, part.patch.indices, part.patch.values, mode="clip")  # a broken index is found by the checksum


def _as_tensor(values: np.ndarray, slice_: Slice) -> Tensor:
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # plasma is read-only and nothing here writes: loaders copy out of it
        return torch.from_numpy(values).view(getattr(torch, slice_.dtype)).view(slice_.shape)
