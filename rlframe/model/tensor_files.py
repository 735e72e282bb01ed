"""`write_tensors`: the safetensors files of a Hugging Face folder, written by pieces of tensors.

safetensors' own writer needs all tensors of a file at once. The format is a length in 8 bytes, a header in JSON that
gives type, shape and place of each tensor, and the tensors' bytes.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rlframe.model.checkpoint_files import WHOLE
from rlframe.model.hub import INDEX

# safetensors' names of the types in checkpoints -> torch's; FP8 is dequantised while it is read.
TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
NOT_COPIED = ("*.safetensors", INDEX, "*.bin", "*.gguf", ".*")


class NewTensor(NamedTuple):
    """A tensor to be written."""

    name: str
    file: str
    type: str  # of TYPES
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * TYPES[self.type].itemsize


def write_tensors(folder: Path, tensors: Iterable[NewTensor], read: Callable[[NewTensor], Iterable[Tensor]]) -> None:
    """Writes each tensor into its file, and the index where there are several files.

    `read`: the pieces of a tensor, one after the other, in its type.
    """
    # Wide types first, so that each tensor begins at a multiple of its width.
    ordered = sorted(tensors, key=lambda tensor: (-TYPES[tensor.type].itemsize, tensor.name))
    files = {tensor.file for tensor in ordered}
    for name in sorted(files):
        _write_file(folder / name, [tensor for tensor in ordered if tensor.file == name], read)
    if files != {WHOLE}:
        index = {
            "metadata": {"total_size": sum(tensor.bytes for tensor in ordered)},
            "weight_map": {tensor.name: tensor.file for tensor in ordered},
        }
        (folder / INDEX).write_text(json.dumps(index, indent=2))


def copy_settings(source: Path, folder: Path) -> None:
    """Copies everything but weights: settings, tokenizer, chat template, generation settings."""
    folder.mkdir()
    for file in source.iterdir():
        if file.is_file() and not any(file.match(pattern) for pattern in NOT_COPIED):
            shutil.copy(file, folder)


def _write_file(path: Path, tensors: list[NewTensor], read: Callable[[NewTensor], Iterable[Tensor]]) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        start, end = end, end + tensor.bytes
        header[tensor.name] = {"dtype": tensor.type, "shape": tensor.shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors:
            for piece in read(tensor):
                file.write(piece.reshape(-1).view(torch.uint8).numpy().tobytes())
        if file.tell() != 8 + len(encoded) + end:
            raise AssertionError(f"{path}: {file.tell()} bytes where {8 + len(encoded) + end} belong")
