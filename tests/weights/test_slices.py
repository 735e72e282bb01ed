"""Slices of tensors, and tensors rebuilt from slices and patches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from rlframe.learner.publisher import chunked, held_runs
from rlframe.weights.slices import Part, Patch, cut, difference, differing, digests, rebuild


class Partitioned(torch.Tensor):
    """A tensor as ZeRO-3 leaves it on a rank: the rank's part, and what the whole was."""


def partitioned(whole: torch.Tensor, rank: int, ranks: int) -> Partitioned:
    size = -(-whole.numel() // ranks)
    padded = torch.full((size * ranks,), 99, dtype=whole.dtype)
    padded[: whole.numel()] = whole.reshape(-1)
    tensor = torch.empty(0).as_subclass(Partitioned)
    tensor.ds_tensor = padded[rank * size : (rank + 1) * size]
    tensor.ds_shape, tensor.ds_numel, tensor.ds_zero_partition_rank = whole.shape, whole.numel(), rank
    return tensor


def bits(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().view({2: torch.uint16, 4: torch.uint32}[tensor.dtype.itemsize]).numpy()


def slices(wholes: dict[str, torch.Tensor], ranks: int) -> list[Part]:
    """All ranks' slices of `wholes`, partitioned, and of one buffer that every rank has whole."""
    every = []
    for rank in range(ranks):
        held = {name: partitioned(whole, rank, ranks) for name, whole in wholes.items()}
        for run in held_runs({**held, "bias": torch.tensor([0.5, -0.5])}, rank):
            values, slice_ = bits(run.values), cut(run, 0)
            every.append(Part(slice_, values, None, *digests(values.view(np.uint8), [slice_])))
    return every


def patched(before: list[Part], after: list[Part], harm: Callable[[Patch], Patch] = lambda patch: patch) -> list[Part]:
    """`before` with patches that make it `after`; the first of them harmed."""
    patches = [difference(old.values, new.values) for old, new in zip(before, after, strict=True)]
    patches[0] = harm(patches[0])
    of_parts = zip(before, after, patches, strict=True)
    return [old._replace(patch=patch, digest=new.digest) for old, new, patch in of_parts]


WHOLES = {"w": torch.arange(7.0).to(torch.bfloat16), "m": torch.arange(6.0).view(2, 3), "one": torch.tensor([3.0])}


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_tensors_come_back_from_any_number_of_ranks_without_padding(ranks: int) -> None:
    parts = slices(WHOLES, ranks)
    tensors = rebuild(parts)
    assert not differing(parts, tensors)
    assert {name: (tensor.dtype, tensor.tolist()) for name, tensor in tensors.items()} == {
        "w": (torch.bfloat16, [0, 1, 2, 3, 4, 5, 6]),
        "m": (torch.float32, [[0, 1, 2], [3, 4, 5]]),
        "one": (torch.float32, [3]),
        "bias": (torch.float32, [0.5, -0.5]),
    }


def test_a_rank_holds_its_run_of_the_flat_values_and_rank_0_alone_sends_buffers() -> None:
    starts = [(part.slice.name, part.slice.start, part.slice.count) for part in slices(WHOLES, 2)]
    first = [("w", 0, 4), ("m", 0, 3), ("one", 0, 1), ("bias", 0, 2)]
    second = [("w", 4, 3), ("m", 3, 3), ("one", 1, 0), ("bias", 0, 0)]
    assert starts == first + second


def test_a_missing_part_is_named_with_what_is_there_of_it() -> None:
    parts = [part for part in slices(WHOLES, 2) if (part.slice.name, part.slice.start) != ("w", 4)]
    with pytest.raises(RuntimeError, match="w has 4 of its 7 values"):
        rebuild(parts)


def test_a_patch_carries_exactly_what_changed_and_gives_the_new_values() -> None:
    before = slices({"w": torch.arange(7.0).to(torch.bfloat16)}, 2)
    after = slices({"w": torch.tensor([0, 1, 2, 3, 40, 5, 60.0]).to(torch.bfloat16)}, 2)
    parts = patched(before, after)
    patches = [part.patch for part in parts if part.patch is not None]
    assert [patch.indices.tolist() for patch in patches] == [[], [], [0, 2], []]
    assert sum(patch.nbytes for patch in patches) == 2 * (1 + 2)  # an index of one byte, a bfloat16, twice
    tensors = rebuild(parts)
    assert not differing(parts, tensors)
    assert tensors["w"].tolist() == [0, 1, 2, 3, 40, 5, 60]


def test_zero_and_minus_zero_differ_for_a_patch_and_a_nan_that_stays_does_not() -> None:
    old, new = torch.tensor([0.0, torch.nan, 1.0]), torch.tensor([-0.0, torch.nan, 1.0])
    assert difference(bits(old), bits(new)).indices.tolist() == [0]


def broken_value(patch: Patch) -> Patch:
    return patch._replace(values=patch.values ^ 1)


def broken_place(patch: Patch) -> Patch:
    return patch._replace(indices=patch.indices + 1)


def place_outside(patch: Patch) -> Patch:
    return patch._replace(indices=patch.indices + 200)


@pytest.mark.parametrize("harm", [broken_value, broken_place, place_outside])
def test_a_harmed_patch_is_found_by_the_checksum_and_its_tensor_named(harm) -> None:
    parts = patched(slices({"w": torch.arange(7.0)}, 1), slices({"w": torch.arange(7.0) * 2}, 1), harm)
    assert differing(parts, rebuild(parts)) == {"w"}


def test_a_flipped_bit_in_a_whole_slice_is_found() -> None:
    parts = slices(WHOLES, 2)
    harmed = parts[1].values.copy()
    harmed[2] ^= 1
    parts[1] = parts[1]._replace(values=harmed)
    assert differing(parts, rebuild(parts)) == {"m"}


def test_chunks_hold_the_same_whole_layers_on_every_rank_and_about_so_many_bytes_of_them() -> None:
    layers = {"a": [4], "b": [2, 2], "c": [16], "d": [3, 1], "e": [2]}  # values; 16, 16, 64, 16, 8 bytes
    for rank in (0, 1):
        runs = [
            held_runs({f"{layer}{i}": partitioned(torch.zeros(size), rank, 2) for i, size in enumerate(sizes)}, rank)
            for layer, sizes in layers.items()
        ]
        names = [[run.name for run in chunk] for chunk in chunked(runs, 32)]
        assert names == [["a0", "b0", "b1"], ["c0"], ["d0", "d1", "e0"]]
