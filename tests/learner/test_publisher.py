"""A chunk's bytes in one piece, ready for the object store."""

from __future__ import annotations

import torch

from rlframe.learner.publisher import _Host
from rlframe.weights.slices import Run


def runs(values: list[torch.Tensor]) -> list[Run]:
    return [Run(f"w{place}", tuple(value.shape), 0, value) for place, value in enumerate(values)]


def test_runs_that_lie_one_after_the_other_travel_without_a_copy_and_their_padding_with_them() -> None:
    flat = torch.arange(1000.0).to(torch.bfloat16)
    chunk = _Host()(runs([flat[300:600], flat[0:300], flat[0:0], flat[602:1000]]))
    assert chunk.data.nbytes == 2000  # two values of padding among them
    assert [slice_.offset for slice_ in chunk.slices] == [600, 0, 0, 1204]
    flat[0] = 7  # 0x40E0: the bytes are the learner's own
    assert chunk.slices[1].of(chunk.data)[0] == 0x40E0


def test_runs_of_several_places_and_types_are_copied_together_and_the_next_chunk_may_take_their_place() -> None:
    host = _Host()
    wide, narrow = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.5], dtype=torch.bfloat16)
    chunk = host(runs([narrow, wide]))
    assert [slice_.offset for slice_ in chunk.slices] == [0, 8]  # of 8 bytes each, so that no value is cut
    assert chunk.slices[0].of(chunk.data).tolist() == [0x3FC0]
    assert chunk.slices[1].of(chunk.data).tolist() == [0x3F800000, 0x40000000, 0x40400000]
    again = host(runs([narrow, wide * 2]))
    assert again.slices[1].of(again.data).tolist() == [0x40000000, 0x40800000, 0x40C00000]
    assert chunk.data.ctypes.data == again.data.ctypes.data


def test_runs_far_apart_in_one_storage_take_nothing_of_what_lies_between() -> None:
    flat = torch.arange(1000.0)
    chunk = _Host()(runs([flat[:10], flat[990:]]))
    assert chunk.data.nbytes == 80
