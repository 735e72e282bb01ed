"""FP8 weights with a scale for each block of a matrix, as DeepSeek-V3 is published.

`layer.weight` [rows, columns] holds float8 values, and `layer.weight_scale_inv` a float for each block of 128 x 128
values: weight = value * scale of the value's block.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SCALE = "_scale_inv"  # behind the weight's name

Block = tuple[int, int]  # rows and columns


def method(folder: Path) -> str | None:
    """The method by which the weights in a Hugging Face folder are quantised; None for other weights."""
    settings = _settings(folder)
    return settings.get("quant_method", "unknown") if settings else None


def fp8_block(folder: Path) -> Block | None:
    """The block that shares a scale, of a folder with FP8 weights of this kind; None for any other folder."""
    settings = _settings(folder)
    if not settings or settings.get("quant_method") != "fp8" or not (size := settings.get("weight_block_size")):
        return None
    rows, columns = size
    return rows, columns


def scales_shape(shape: tuple[int, ...], block: Block) -> tuple[int, ...]:
    """The shape of the scales of a matrix: (5, 2) for (576, 256) in blocks of (128, 128)."""
    return tuple(math.ceil(size / part) for size, part in zip(shape, block, strict=True))


def scale_rows(first: int, last: int, block: Block) -> slice:
    """The rows of the scales for rows [first, last) of the matrix."""
    return slice(first // block[0], math.ceil(last / block[0]))


def dequantised(rows: Tensor, scales: Tensor, first: int, block: Block) -> Tensor:
    """Rows [first, ...) of a matrix in float32, from these float8 rows and `scale_rows` of the scales."""
    skipped = first % block[0]
    by_row = scales.float().repeat_interleave(block[0], dim=0)[skipped : skipped + len(rows)]
    return rows.float() * by_row.repeat_interleave(block[1], dim=1)[:, : rows.shape[1]]


def _settings(folder: Path) -> dict[str, Any] | None:
    config = json.loads((folder / "config.json").read_text())
    return config.get("quantization_config") or config.get("text_config", {}).get("quantization_config")
