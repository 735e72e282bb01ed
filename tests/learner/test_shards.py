"""A checkpoint's files: any number of ranks reads the files of any other number."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from rlframe.learner.shards import HEADER, RankState, SavedState, Shard, write

WHOLE = {"embed": torch.arange(60.0).reshape(12, 5), "norm": torch.tensor([7.0, 8.0]), "bias": torch.tensor([0.5])}


def ranges(numel: int, ranks: int) -> list[tuple[int, int]]:
    """ZeRO-3's shards: of equal length, the last ones short or empty. 5 on 3 ranks: (0, 2), (2, 4), (4, 5)."""
    length = math.ceil(numel / ranks)
    return [(min(rank * length, numel), min((rank + 1) * length, numel)) for rank in range(ranks)]


def shard(tensor: Tensor, start: int, end: int) -> Shard:
    values = tensor.reshape(-1)[start:end].clone()
    tensors = {"master": values, "exp_avg": -values} if end > start else {}
    tensors["step"] = torch.tensor(3.0)
    return Shard(shape=tuple(tensor.shape), start=start, tensors=tensors, numbers={"beta": 0.25})


def save(folder: Path, ranks: int) -> None:
    for rank in range(ranks):
        shards = {name: shard(tensor, *ranges(tensor.numel(), ranks)[rank]) for name, tensor in WHOLE.items()}
        buffers = {"router.bias": torch.tensor([1, 2])} if rank == 0 else {}
        write(RankState(shards=shards, buffers=buffers, counters={"skipped": 4}), folder, rank, ranks)


@pytest.mark.parametrize("writers", [1, 2, 3, 7])
@pytest.mark.parametrize("readers", [1, 2, 3, 5])
def test_every_number_of_ranks_reads_the_files_of_every_other(tmp_path: Path, writers: int, readers: int) -> None:
    save(tmp_path, writers)
    assert len(list(tmp_path.iterdir())) == writers
    saved = SavedState(tmp_path)
    assert saved.shapes == {"embed": (12, 5), "norm": (2,), "bias": (1,)}
    for name, tensor in WHOLE.items():
        assert saved.kinds(name) == ["exp_avg", "master", "step"]
        cuts = ranges(tensor.numel(), readers)
        for kind, sign in (("master", 1), ("exp_avg", -1)):
            values = torch.cat([saved.read(name, kind, start, end) for start, end in cuts])
            assert torch.equal(values, sign * tensor.reshape(-1))
        assert saved.read(name, "step", *cuts[-1]) == torch.tensor(3.0)
        assert saved.numbers[name] == {"beta": 0.25}
    assert saved.buffers["router.bias"].tolist() == [1, 2]
    assert saved.counters == {"skipped": 4}


def test_an_error_names_the_entries_of_a_missing_rank(tmp_path: Path) -> None:
    save(tmp_path, 3)
    (tmp_path / "rank_00001_of_00003.safetensors").unlink()
    saved = SavedState(tmp_path)
    assert saved.read("embed", "master", 0, 20).tolist() == list(range(20))
    with pytest.raises(ValueError, match="entries 20 to 30 of master of embed are in none of the files"):
        saved.read("embed", "master", 10, 30)


def test_an_error_names_a_folder_without_state(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no state of a learner"):
        SavedState(tmp_path)


@pytest.mark.parametrize("number", [None, 0, 2])
def test_an_error_names_a_file_of_another_format(tmp_path: Path, number: int | None) -> None:
    header = {"shards": {}, "counters": {}} | ({} if number is None else {"format": number})
    save_file({}, tmp_path / "rank_00000_of_00001.safetensors", metadata={HEADER: json.dumps(header)})
    with pytest.raises(ValueError) as refused:
        SavedState(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path}/rank_00000_of_00001.safetensors was written by another version of rlframe "
        f"(format {number}, not 1): start a new run or use that version"
    )


def test_an_error_names_a_file_without_our_header(tmp_path: Path) -> None:
    save_file({}, tmp_path / "rank_00000_of_00001.safetensors")
    with pytest.raises(ValueError, match=r"rank_00000_of_00001\.safetensors was written by another version"):
        SavedState(tmp_path)
