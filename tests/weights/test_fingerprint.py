"""The checksum that a tensor's device computes."""

from __future__ import annotations

import pytest
import torch

from rlframe.weights import fingerprint as module
from rlframe.weights.fingerprint import fingerprint, read_fingerprints


def words(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def test_words_count_by_their_place() -> None:
    assert int(fingerprint(words(5, 0, 7))) == 5 * 1 + 0 * 3 + 7 * 5
    assert int(fingerprint(words(0, 5, 7))) == 0 * 1 + 5 * 3 + 7 * 5


@pytest.mark.parametrize("bit", range(0, 64, 7))
def test_every_flipped_bit_changes_the_sum(bit: int) -> None:
    tensor = torch.randn(9, generator=torch.Generator().manual_seed(0))
    for place in range(len(tensor) // 2):
        harmed = tensor.clone()
        harmed[: len(tensor) // 2 * 2].view(torch.int64)[place] ^= 1 << min(bit, 62)
        assert int(fingerprint(harmed)) != int(fingerprint(tensor))


def test_bytes_after_the_last_whole_word_count() -> None:
    tensor = torch.tensor([1, 2, 3, 4, 5], dtype=torch.bfloat16)
    assert int(fingerprint(tensor)) != int(fingerprint(tensor[:4])) != int(fingerprint(tensor[1:]))


def test_chunks_make_the_same_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.randn(101, generator=torch.Generator().manual_seed(0))
    whole = int(fingerprint(tensor))
    monkeypatch.setattr(module, "CHUNK_WORDS", 4)
    assert int(fingerprint(tensor)) == whole


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.uint8])
def test_views_at_any_place_have_the_sum_of_their_copies(dtype: torch.dtype) -> None:
    tensor = (torch.rand(64, 5, generator=torch.Generator().manual_seed(0)) * 100).to(dtype)
    for view in (tensor[1:], tensor[:, 1:], tensor.T, tensor[3, 2], tensor.reshape(-1)[1:9]):
        assert int(fingerprint(view)) == int(fingerprint(view.clone(memory_format=torch.contiguous_format)))


def test_fingerprints_are_read_together() -> None:
    assert read_fingerprints({"a": fingerprint(words(1)), "b": fingerprint(words(2))}) == {"a": 1, "b": 2}
    assert read_fingerprints({}) == {}
