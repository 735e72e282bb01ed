"""`CheckpointFiles`: the tensors in a Hugging Face folder's safetensors files, read by parts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlframe.errors import RunFailed

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"  # tensor name -> file


class TensorRange(NamedTuple):
    """Entries [start, start + n) of a flattened tensor, in memory that a reader fills.

    Rank 1 of 2 has start 6 and n 6 of a tensor of shape [4, 3].
    """

    start: int
    values: Tensor  # [n], in the memory and the dtype of its owner

    @property
    def end(self) -> int:
        return self.start + len(self.values)

    def rows(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The rows [first, last) of a tensor of `shape` that hold the entries: (2, 4) in the example."""
        width = math.prod(shape[1:])
        return self.start // width, -(-self.end // width)

    def cut(self, rows: Tensor, first: int) -> None:
        """Fills the range from rows [first, ...) of its tensor."""
        flat = rows.reshape(-1)
        skipped = self.start - first * (rows.numel() // len(rows) if rows.ndim else 1)
        self.values.copy_(flat[skipped : skipped + len(self.values)])


class CheckpointFiles:
    """Tensors by their names in the files. Files are mapped into memory, so a process reads only what it needs."""

    def __init__(self, folder: Path) -> None:
        """Raises RunFailed where the folder has no safetensors files, or lacks one that its index names."""
        from safetensors import safe_open

        self.folder = folder
        if (folder / WHOLE).is_file():
            names = [WHOLE]
        elif (folder / INDEX).is_file():
            names = sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
        else:
            raise RunFailed(
                f"model.path: {folder} has neither {WHOLE} nor {INDEX}; save the model with transformers' "
                "save_pretrained, and give that folder"
            )
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise RunFailed(f"model.path: {folder} lacks {missing[0]}, which its {INDEX} names; copy all files again")
        self._slices: dict[str, Any] = {}
        for name in names:
            file = safe_open(folder / name, framework="pt")
            self._slices |= {tensor: file.get_slice(tensor) for tensor in file.keys()}  # noqa: SIM118

    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._slices)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._slices[name].get_shape())

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """A whole tensor. In the dtype of the file it is a view of the file."""
        return self._slices[name][...].to(dtype)

    def fill(self, name: str, part: TensorRange) -> None:
        """Reads a part of a tensor into the part's memory."""
        shape = self.shape(name)
        if not shape:
            part.values.copy_(self._slices[name][...].reshape(1)[: len(part.values)])
        elif len(part.values):
            first, last = part.rows(shape)
            part.cut(self._slices[name][first:last], first)
