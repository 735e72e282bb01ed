"""Shards of tensors, and tensors rebuilt from shards and deltas."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from rlframe.learner.buckets import bucketed, rank_shards
from rlframe.learner.publisher import delta, shard_checksums
from rlframe.rollout.rebuild import differing, rebuild
from rlframe.weights.shards import ArrivedShard, Bucket, Delta


class Partitioned(torch.Tensor):
    """A tensor as ZeRO-3 leaves it on a rank: the rank's shard, and the shape of the whole."""


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


def arrived(wholes: dict[str, torch.Tensor], ranks: int) -> list[ArrivedShard]:
    """All ranks' shards of `wholes`, partitioned, and of one buffer that every rank holds whole."""
    shards = []
    for rank in range(ranks):
        tensors = {name: partitioned(whole, rank, ranks) for name, whole in wholes.items()}
        for shard in rank_shards({**tensors, "bias": torch.tensor([0.5, -0.5])}, rank):
            values, header = bits(shard.values), shard.header(0)
            shards.append(ArrivedShard(header, values, None, *shard_checksums(Bucket([header], values.view(np.uint8)))))
    return shards


def with_deltas(
    old: list[ArrivedShard], new: list[ArrivedShard], harm: Callable[[Delta], Delta] = lambda delta: delta
) -> list[ArrivedShard]:
    """`old` with deltas that turn it into `new`; the first delta harmed."""
    deltas = [delta(before.values, after.values) for before, after in zip(old, new, strict=True)]
    deltas[0] = harm(deltas[0])
    return [
        before._replace(delta=changes, checksum=after.checksum)
        for before, after, changes in zip(old, new, deltas, strict=True)
    ]


WHOLES = {"w": torch.arange(7.0).to(torch.bfloat16), "m": torch.arange(6.0).view(2, 3), "one": torch.tensor([3.0])}


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_tensors_come_back_from_any_number_of_ranks_without_padding(ranks: int) -> None:
    shards = arrived(WHOLES, ranks)
    tensors = rebuild(shards)
    assert not differing(shards, tensors)
    assert {name: (tensor.dtype, tensor.tolist()) for name, tensor in tensors.items()} == {
        "w": (torch.bfloat16, [0, 1, 2, 3, 4, 5, 6]),
        "m": (torch.float32, [[0, 1, 2], [3, 4, 5]]),
        "one": (torch.float32, [3]),
        "bias": (torch.float32, [0.5, -0.5]),
    }


def test_ranks_hold_flat_shards_and_only_rank_0_sends_buffers() -> None:
    spans = [(header.name, header.start, header.size) for header, *_ in arrived(WHOLES, 2)]
    first = [("w", 0, 4), ("m", 0, 3), ("one", 0, 1), ("bias", 0, 2)]
    second = [("w", 4, 3), ("m", 3, 3), ("one", 1, 0), ("bias", 0, 0)]
    assert spans == first + second


def test_a_tensor_with_a_missing_shard_is_named_with_its_counts() -> None:
    shards = [shard for shard in arrived(WHOLES, 2) if (shard.header.name, shard.header.start) != ("w", 4)]
    with pytest.raises(RuntimeError, match="w has 4 of its 7 values"):
        rebuild(shards)


def test_a_delta_holds_exactly_the_changes_and_gives_the_new_values() -> None:
    old = arrived({"w": torch.arange(7.0).to(torch.bfloat16)}, 2)
    new = arrived({"w": torch.tensor([0, 1, 2, 3, 40, 5, 60.0]).to(torch.bfloat16)}, 2)
    shards = with_deltas(old, new)
    deltas = [shard.delta for shard in shards if shard.delta is not None]
    assert [changes.indices.tolist() for changes in deltas] == [[], [], [0, 2], []]
    assert sum(changes.nbytes for changes in deltas) == 2 * (1 + 2)  # an index of one byte, a bfloat16, twice
    tensors = rebuild(shards)
    assert not differing(shards, tensors)
    assert tensors["w"].tolist() == [0, 1, 2, 3, 40, 5, 60]


def test_zero_and_minus_zero_differ_in_a_delta_and_equal_nans_do_not() -> None:
    old, new = torch.tensor([0.0, torch.nan, 1.0]), torch.tensor([-0.0, torch.nan, 1.0])
    assert delta(bits(old), bits(new)).indices.tolist() == [0]


def broken_value(changes: Delta) -> Delta:
    return changes._replace(values=changes.values ^ 1)


def broken_index(changes: Delta) -> Delta:
    return changes._replace(indices=changes.indices + 1)


def index_outside(changes: Delta) -> Delta:
    return changes._replace(indices=changes.indices + 200)


@pytest.mark.parametrize("harm", [broken_value, broken_index, index_outside])
def test_the_checksum_finds_a_harmed_delta_and_names_its_tensor(harm) -> None:
    shards = with_deltas(arrived({"w": torch.arange(7.0)}, 1), arrived({"w": torch.arange(7.0) * 2}, 1), harm)
    assert differing(shards, rebuild(shards)) == {"w"}


def test_the_checksum_finds_a_flipped_bit_in_a_whole_shard() -> None:
    shards = arrived(WHOLES, 2)
    harmed = shards[1].values.copy()
    harmed[2] ^= 1
    shards[1] = shards[1]._replace(values=harmed)
    assert differing(shards, rebuild(shards)) == {"m"}


def test_buckets_hold_the_same_whole_layers_on_every_rank() -> None:
    layers = {"a": [4], "b": [2, 2], "c": [16], "d": [3, 1], "e": [2]}  # values; 16, 16, 64, 16, 8 bytes
    for rank in (0, 1):
        shards = [
            rank_shards({f"{layer}{i}": partitioned(torch.zeros(size), rank, 2) for i, size in enumerate(sizes)}, rank)
            for layer, sizes in layers.items()
        ]
        names = [[shard.name for shard in bucket] for bucket in bucketed(shards, 32)]
        assert names == [["a0", "b0", "b1"], ["c0"], ["d0", "d1", "e0"]]
