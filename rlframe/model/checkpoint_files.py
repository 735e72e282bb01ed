"""`CheckpointFiles`: the tensors in a Hugging Face folder's safetensors files, read by parts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rlframe.errors import RunFailed
from rlframe.model.hub import INDEX
from rlframe.model.quantisation import SCALE, dequantised, fp8_block, scale_rows, scales_shape

WHOLE = "model.safetensors"
CHUNK = 1 << 22  # values that are read at a time


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
        """Fills the entries that rows [first, ...) of the tensor hold."""
        flat = rows.reshape(-1)
        begin = first * math.prod(rows.shape[1:])
        start, end = max(self.start, begin), min(self.end, begin + len(flat))
        self.values[start - self.start : end - self.start].copy_(flat[start - begin : end - begin])


class CheckpointFiles:
    """Tensors by their names in the files, FP8 weights dequantised.

    Files are mapped into memory, so a process reads only what it needs.
    """

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
        self.file_of: dict[str, str] = {}  # tensor -> name of its file
        for name in names:
            file = safe_open(folder / name, framework="pt")
            self._slices |= {tensor: file.get_slice(tensor) for tensor in file.keys()}  # noqa: SIM118
            self.file_of |= dict.fromkeys(file.keys(), name)
        self._block = fp8_block(folder)
        self._scales = {
            name: self._slices.pop(name + SCALE) for name in list(self._slices) if name + SCALE in self._slices
        }
        self._check_scales()

    def names(self) -> list[str]:
        """Names of all tensors; scales belong to their weights."""
        return list(self._slices)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._slices[name].get_shape())

    def type(self, name: str) -> str:
        """safetensors' name of a tensor's type in its file: "BF16"."""
        return self._slices[name].get_dtype()

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """A whole tensor. In the dtype of the file it is a view of the file."""
        return self._rows(name, 0, self.shape(name)[0] if self.shape(name) else 1).to(dtype)

    def fill(self, name: str, part: TensorRange) -> None:
        """Reads a part of a tensor into `part.values`."""
        shape = self.shape(name)
        first, last = part.rows(shape)
        step = max(1, CHUNK // max(1, math.prod(shape[1:])))
        for row in range(first, last if len(part.values) else first, step):
            part.cut(self._rows(name, row, min(row + step, last)), row)

    def _rows(self, name: str, first: int, last: int) -> Tensor:
        values = self._slices[name]
        if not values.get_shape():
            return values[...]
        if name not in self._scales or self._block is None:
            return values[first:last]
        scales = self._scales[name][scale_rows(first, last, self._block)]
        return dequantised(values[first:last], scales, first, self._block)

    def _check_scales(self) -> None:
        """Raises RunFailed naming a quantised weight without scales of the right shape."""
        for name, values in self._slices.items():
            shape = self.shape(name)
            scales = self._scales.get(name)
            if not values.get_dtype().startswith("F8") and scales is None:
                continue
            if (
                self._block is None
                or scales is None
                or len(shape) != 2
                or tuple(scales.get_shape()) != scales_shape(shape, self._block)
            ):
                raise RunFailed(
                    f"model.path: {name} in {self.folder} is in FP8, and rlframe reads matrices with a scale for each "
                    f"block ({name}{SCALE}, and quantization_config.weight_block_size in config.json) only; save the "
                    "weights dequantised with transformers, and give that folder"
                )
