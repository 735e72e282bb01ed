"""A bucket's payload as one array, ready for the object store."""

from __future__ import annotations

import torch

from rlframe.learner.buckets import HostBuffer, TensorShard


def shards(values: list[torch.Tensor]) -> list[TensorShard]:
    return [TensorShard(f"w{index}", tuple(value.shape), 0, value) for index, value in enumerate(values)]


def test_neighbouring_shards_travel_without_a_copy_but_with_padding() -> None:
    flat = torch.arange(1000.0).to(torch.bfloat16)
    bucket = HostBuffer().pack(shards([flat[300:600], flat[0:300], flat[0:0], flat[602:1000]]))
    assert bucket.payload.nbytes == 2000  # two values of padding among them
    assert [header.offset for header in bucket.headers] == [600, 0, 0, 1204]
    flat[0] = 7  # 0x40E0: the bytes are the learner's own
    assert bucket.headers[1].values(bucket.payload)[0] == 0x40E0


def test_scattered_shards_are_copied_into_memory_that_the_next_call_uses() -> None:
    host = HostBuffer()
    wide, narrow = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.5], dtype=torch.bfloat16)
    bucket = host.pack(shards([narrow, wide]))
    assert [header.offset for header in bucket.headers] == [0, 8]  # multiples of 8 bytes, so that no value is cut
    assert bucket.headers[0].values(bucket.payload).tolist() == [0x3FC0]
    assert bucket.headers[1].values(bucket.payload).tolist() == [0x3F800000, 0x40000000, 0x40400000]
    second = host.pack(shards([narrow, wide * 2]))
    assert second.headers[1].values(second.payload).tolist() == [0x40000000, 0x40800000, 0x40C00000]
    assert bucket.payload.ctypes.data == second.payload.ctypes.data


def test_shards_far_apart_in_one_storage_travel_without_the_gap() -> None:
    flat = torch.arange(1000.0)
    bucket = HostBuffer().pack(shards([flat[:10], flat[990:]]))
    assert bucket.payload.nbytes == 80
