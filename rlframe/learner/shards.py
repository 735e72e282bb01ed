"""A learner's checkpoint: one safetensors file for each rank, which any number of ranks can read. No pickle.

A file holds a rank's shard of every parameter as `master/<name>`, with one tensor of the same length for each moment
of the optimizer (`exp_avg/<name>`), and rank 0's whole buffers as `buffer/<name>`. Its header says where shards start.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from safetensors import safe_open

FORMAT = 1  # of the files; raise it with every change that older code would misread
HEADER = "rlframe"  # our entry in safetensors' metadata, a dictionary of strings; holds the header as JSON
MASTER = "master"
BUFFER = "buffer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A rank's part of a parameter: entries [start, start + n) of the flattened values.

    The second of three ranks has start 20 and n 20 of a parameter of shape (12, 5).
    """

    shape: tuple[int, ...]  # of the whole parameter
    start: int
    tensors: dict[str, Tensor]  # "master", "exp_avg", ...: [n] each; without a dimension: of the whole parameter
    numbers: dict[str, float]  # the optimizer's Python numbers for the parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class RankState:
    """The content of one rank's file, in the host's memory, so that training can go on while a thread writes."""

    shards: dict[str, Shard]  # by parameter name
    buffers: dict[str, Tensor]  # whole; rank 0's are read
    counters: dict[str, int]


def write(state: RankState, folder: Path, rank: int, ranks: int) -> Path:
    """Writes a rank's file into `folder` -> the file."""
    from safetensors.torch import save_file

    tensors = {f"{kind}/{name}": t for name, shard in state.shards.items() for kind, t in shard.tensors.items()}
    tensors |= {f"{BUFFER}/{name}": tensor for name, tensor in state.buffers.items()}
    shards = {
        name: {"shape": shard.shape, "start": shard.start, "numbers": shard.numbers}
        for name, shard in state.shards.items()
    }
    header = json.dumps({"format": FORMAT, "shards": shards, "counters": state.counters})
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"rank_{rank:05d}_of_{ranks:05d}.safetensors"
    save_file(tensors, file, metadata={HEADER: header})
    return file


class StoredShard(NamedTuple):
    """A rank's shard of one tensor, still on disk."""

    file: safe_open
    key: str
    start: int
    end: int


class SavedState:
    """The state in all files of a folder. `read` loads only the shards that it needs."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError where the folder has no such files, or files of another format."""
        from safetensors import safe_open

        self.shapes: dict[str, tuple[int, ...]] = {}
        self.numbers: dict[str, dict[str, float]] = {}
        self.counters: dict[str, int] = {}
        self.buffers: dict[str, Tensor] = {}
        self._shards: dict[tuple[str, str], list[StoredShard]] = defaultdict(list)  # (parameter, kind)
        files = sorted(folder.glob("rank_*.safetensors"))
        if not files:
            raise ValueError(f"{folder} holds no state of a learner")
        for path in reversed(files):  # rank 0 comes last and overrides the other ranks' shapes, numbers and counters
            file = safe_open(path, framework="pt")
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            if header.get("format") != FORMAT:
                raise ValueError(
                    f"{path} was written by another version of rlframe (format {header.get('format')}, not {FORMAT}): "
                    "start a new run or use that version"
                )
            self.counters = header["counters"]
            self._add(file, header["shards"])

    def kinds(self, name: str) -> list[str]:
        """The tensors of a parameter: `master`, and the optimizer's moments."""
        return sorted(kind for parameter, kind in self._shards if parameter == name)

    def read(self, name: str, kind: str, start: int, end: int) -> Tensor:
        """Entries [start, end) of a parameter's tensor, from several files if need be; a scalar tensor comes whole.

        Raises ValueError where entries are missing.
        """
        stored = self._shards[name, kind]
        if not stored[0].file.get_slice(stored[0].key).get_shape():
            return stored[0].file.get_tensor(stored[0].key)
        pieces = []
        position = start
        for shard in sorted(stored, key=lambda shard: shard.start):
            if shard.start <= position < min(shard.end, end):
                stop = min(shard.end, end)
                pieces.append(shard.file.get_slice(shard.key)[position - shard.start : stop - shard.start])
                position = stop
        if position < end:
            raise ValueError(f"entries {position} to {end} of {kind} of {name} are in none of the files")
        return torch.cat(pieces) if pieces else torch.empty(0)

    def _add(self, file: Any, shards: dict[str, dict[str, Any]]) -> None:
        for name, shard in shards.items():
            self.shapes[name] = tuple(shard["shape"])
            self.numbers[name] = shard["numbers"]
        for key in file.keys():  # noqa: SIM118 (no dictionary)
            kind, _, name = key.partition("/")
            if kind == BUFFER:
                self.buffers[name] = file.get_tensor(key)
                continue
            shape = file.get_slice(key).get_shape()
            start = shards[name]["start"]
            self._shards[name, kind].append(StoredShard(file, key, start, start + (shape[0] if shape else 0)))
