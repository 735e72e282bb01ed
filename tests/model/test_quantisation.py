"""FP8 weights in blocks: their values, and models that have them as transformers loads their dequantised copies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlframe.errors import RunFailed
from rlframe.model.checkpoint_files import CheckpointFiles
from rlframe.model.quantisation import dequantised, fp8_block, method, scale_rows, scales_shape
from tests.model.test_conversion import parts_of
from tests.tiny.models import make_fp8

BLOCK = (48, 32)  # divides no side of the tiny models' matrices


def test_a_weight_is_its_value_times_the_scale_of_its_block() -> None:
    values = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0], [1.0, 1.0, 1.0]]).to(torch.float8_e4m3fn)
    scales = torch.tensor([[10.0, 100.0], [0.5, 0.25]])  # of blocks of 2 x 2, cut at the edges
    assert scales_shape((3, 3), (2, 2)) == (2, 2)
    whole = [[10, 20, 400], [80, 160, 3200], [0.5, 0.5, 0.25]]
    assert dequantised(values, scales, 0, (2, 2)).tolist() == whole
    assert scale_rows(1, 3, (2, 2)) == slice(0, 2)
    assert dequantised(values[1:3], scales, 1, (2, 2)).tolist() == whole[1:]
    assert scale_rows(2, 3, (2, 2)) == slice(1, 2)
    assert dequantised(values[2:3], scales[1:2], 2, (2, 2)).tolist() == whole[2:]


def dequantised_by_definition(folder: Path) -> dict[str, Tensor]:
    """Every weight by its name in the files, from a scale for each of its values."""
    tensors = load_file(folder / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_scale_inv")]:
        scales, weight = tensors.pop(name), name.removesuffix("_scale_inv")
        rows, columns = tensors[weight].shape
        scale = torch.kron(scales, torch.ones(BLOCK))[:rows, :columns]
        tensors[weight] = tensors[weight].float() * scale
    return tensors


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("name", ["untied_model", "deepseek_v3_model"])
def test_ranks_read_an_fp8_model_as_its_dequantised_copy(
    name: str, ranks: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(name)
    quantised = make_fp8(source, tmp_path / "quantised", BLOCK)
    plain = make_fp8(source, tmp_path / "plain", BLOCK)
    save_file(dequantised_by_definition(quantised), plain / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((source / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps(settings))
    assert (method(quantised), fp8_block(quantised)) == ("fp8", BLOCK)
    assert (method(plain), fp8_block(plain)) == (None, None)
    ours, expected = (parts_of(folder, torch.bfloat16, ranks) for folder in (quantised, plain))
    assert ours.keys() == expected.keys()
    assert [key for key, tensor in ours.items() if not torch.equal(tensor, expected[key])] == []
    original = parts_of(source, torch.bfloat16, 1)
    largest = max(float((ours[key] - tensor).abs().max()) for key, tensor in original.items())
    assert 0 < largest < 0.1  # of weights of about 0.2; FP8 rounds by 6 % at most


def test_fp8_weights_without_scales_of_their_blocks_are_refused(untied_model: Path, tmp_path: Path) -> None:
    folder = make_fp8(untied_model, tmp_path / "model", BLOCK)
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    scales = tensors.pop(f"{name}_scale_inv")
    for wrong in ({}, {f"{name}_scale_inv": scales[:1].contiguous()}):
        save_file(tensors | wrong, folder / "model.safetensors")
        with pytest.raises(RunFailed, match=rf"{name} in {folder} is in FP8, and rlframe reads matrices with a scale"):
            CheckpointFiles(folder)
