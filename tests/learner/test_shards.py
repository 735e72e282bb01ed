"""Slices on disk: what any number of ranks wrote, any other number reads."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlframe.learner.shards import Saved, Shard, Slice, write

WHOLE = {"embed": torch.arange(60.0).reshape(12, 5), "norm": torch.tensor([7.0, 8.0]), "bias": torch.tensor([0.5])}


def parts(numel: int, ranks: int) -> list[tuple[int, int]]:
    """ZeRO-3's cut: equal parts, the last ones short or empty. 5 over 3 ranks: (0, 2), (2, 4), (4, 5)."""
    length = math.ceil(numel / ranks)
    return [(min(rank * length, numel), min((rank + 1) * length, numel)) for rank in range(ranks)]


def piece(tensor: Tensor, start: int, end: int) -> Slice:
    values = tensor.reshape(-1)[start:end].clone()
    tensors = {"master": values, "exp_avg": -values} if end > start else {}
    tensors["step"] = torch.tensor(3.0)
    return Slice(shape=tuple(tensor.shape), start=start, tensors=tensors, numbers={"beta": 0.25})


def save(folder: Path, ranks: int) -> None:
    for rank in range(ranks):
        slices = {name: piece(tensor, *parts(tensor.numel(), ranks)[rank]) for name, tensor in WHOLE.items()}
        buffers = {"router.bias": torch.tensor([1, 2])} if rank == 0 else {}
        write(Shard(slices=slices, buffers=buffers, counters={"skipped": 4}), folder, rank, ranks)


@pytest.mark.parametrize("wrote", [1, 2, 3, 7])
@pytest.mark.parametrize("reads", [1, 2, 3, 5])
def test_every_number_of_ranks_reads_what_every_other_wrote(tmp_path: Path, wrote: int, reads: int) -> None:
    save(tmp_path, wrote)
    assert len(list(tmp_path.iterdir())) == wrote
    saved = Saved(tmp_path)
    assert saved.shapes == {"embed": (12, 5), "norm": (2,), "bias": (1,)}
    for name, tensor in WHOLE.items():
        assert saved.kinds(name) == ["exp_avg", "master", "step"]
        cuts = parts(tensor.numel(), reads)
        for kind, sign in (("master", 1), ("exp_avg", -1)):
            got = torch.cat([saved.read(name, kind, start, end) for start, end in cuts])
            assert torch.equal(got, sign * tensor.reshape(-1))
        assert saved.read(name, "step", *cuts[-1]) == torch.tensor(3.0)
        assert saved.numbers[name] == {"beta": 0.25}
    assert saved.buffers["router.bias"].tolist() == [1, 2]
    assert saved.counters == {"skipped": 4}


def test_a_missing_rank_is_told_by_the_entries_that_it_held(tmp_path: Path) -> None:
    save(tmp_path, 3)
    (tmp_path / "rank_00001_of_00003.safetensors").unlink()
    saved = Saved(tmp_path)
    assert saved.read("embed", "master", 0, 20).tolist() == list(range(20))
    with pytest.raises(ValueError, match="entries 20 to 30 of master of embed are in none of the files"):
        saved.read("embed", "master", 10, 30)


def test_a_folder_without_files_is_no_state(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no state of a learner"):
        Saved(tmp_path)
