"""A learner's state on disk: flat slices of named tensors, which any number of ranks can slice anew. No pickle.

A file is a rank's, in the safetensors format: `master/<name>` and one tensor of the same length for each moment
of the optimizer (`exp_avg/<name>`), `buffer/<name>` whole, and in the header what the slices are slices of.
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

HEADER = "rlframe"  # safetensors' metadata is a dictionary of strings; this entry holds ours as JSON
MASTER = "master"
BUFFER = "buffer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What one rank holds of a parameter: entries [start, start + n) of its values, flattened."""

    shape: tuple[int, ...]  # of the whole parameter
    start: int
    tensors: dict[str, Tensor]  # "master", "exp_avg", ...: [n] each; one without a dimension is the whole's
    numbers: dict[str, float]  # of the optimizer, where they are no tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """All that one rank writes; in the host's memory, so that training can go on meanwhile."""

    slices: dict[str, Slice]  # by parameter
    buffers: dict[str, Tensor]  # whole; those of rank 0 are read
    counters: dict[str, int]


def write(shard: Shard, folder: Path, rank: int, ranks: int) -> None:
    """Writes a rank's file into `folder`."""
    from safetensors.torch import save_file

    tensors = {f"{kind}/{name}": t for name, piece in shard.slices.items() for kind, t in piece.tensors.items()}
    tensors |= {f"{BUFFER}/{name}": tensor for name, tensor in shard.buffers.items()}
    slices = {
        name: {"shape": piece.shape, "start": piece.start, "numbers": piece.numbers}
        for name, piece in shard.slices.items()
    }
    header = json.dumps({"slices": slices, "counters": shard.counters})
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / f"rank_{rank:05d}_of_{ranks:05d}.safetensors", metadata={HEADER: header})


class Piece(NamedTuple):
    """A rank's slice of one tensor, still on disk."""

    file: safe_open
    key: str
    start: int
    end: int


class Saved:
    """What the files of a folder hold together, read piece by piece: `read` opens what it needs and no more."""

    def __init__(self, folder: Path) -> None:
        """Raises ValueError where the folder has no such files."""
        from safetensors import safe_open

        self.shapes: dict[str, tuple[int, ...]] = {}
        self.numbers: dict[str, dict[str, float]] = {}
        self.counters: dict[str, int] = {}
        self.buffers: dict[str, Tensor] = {}
        self._pieces: dict[tuple[str, str], list[Piece]] = defaultdict(list)  # (parameter, kind)
        files = sorted(folder.glob("rank_*.safetensors"))
        if not files:
            raise ValueError(f"{folder} holds no state of a learner")
        for path in reversed(files):  # rank 0 last: its word counts
            file = safe_open(path, framework="pt")
            header = json.loads(file.metadata()[HEADER])
            self.counters = header["counters"]
            self._add(file, header["slices"])

    def kinds(self, name: str) -> list[str]:
        """What there is of a parameter: `master`, and the optimizer's moments."""
        return sorted(kind for of, kind in self._pieces if of == name)

    def read(self, name: str, kind: str, start: int, end: int) -> Tensor:
        """Entries [start, end) of a parameter's tensor, from as many files as hold a part; whole without a dimension.

        Raises ValueError where entries are missing.
        """
        pieces = self._pieces[name, kind]
        if not pieces[0].file.get_slice(pieces[0].key).get_shape():
            return pieces[0].file.get_tensor(pieces[0].key)
        parts = []
        at = start
        for piece in sorted(pieces, key=lambda piece: piece.start):
            if piece.start <= at < min(piece.end, end):
                upto = min(piece.end, end)
                parts.append(piece.file.get_slice(piece.key)[at - piece.start : upto - piece.start])
                at = upto
        if at < end:
            raise ValueError(f"entries {at} to {end} of {kind} of {name} are in none of the files")
        return torch.cat(parts) if parts else torch.empty(0)

    def _add(self, file: Any, slices: dict[str, dict[str, Any]]) -> None:
        for name, piece in slices.items():
            self.shapes[name] = tuple(piece["shape"])
            self.numbers[name] = piece["numbers"]
        for key in file.keys():  # noqa: SIM118 (no dictionary)
            kind, _, name = key.partition("/")
            if kind == BUFFER:
                self.buffers[name] = file.get_tensor(key)
                continue
            shape = file.get_slice(key).get_shape()
            start = slices[name]["start"]
            self._pieces[name, kind].append(Piece(file, key, start, start + (shape[0] if shape else 0)))
