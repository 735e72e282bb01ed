"""Parts of a model's tensors, read from files, equal those that transformers loads; files that do not fit are refused.

Files come from `save_pretrained` of tiny random models: their tensors differ from the model's in names, and experts are
one by one.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from rlframe.errors import RunFailed
from rlframe.model.checkpoint_files import CheckpointFiles, TensorRange
from rlframe.model.conversion import conversions
from rlframe.model.policy import empty_model

FOLDERS = ["tiny_model", "untied_model", "qwen3_moe_model", "deepseek_v3_model"]


def parts_of(folder: Path, dtype: torch.dtype, ranks: int) -> dict[str, Tensor]:
    """The model's tensors, joined from the equal flat parts that `ranks` readers read."""
    model = empty_model(folder, dtype, "eager", "padded")
    files = CheckpointFiles(folder)
    tensors = model.state_dict()
    joined: dict[str, Tensor] = {}
    for conversion in conversions(model, files):
        pieces: dict[str, list[Tensor]] = {name: [] for name in conversion.targets}
        for rank in range(ranks):
            parts = {}
            for name in conversion.targets:
                length = math.ceil(tensors[name].numel() / ranks)
                start = min(rank * length, tensors[name].numel())
                end = min(start + length, tensors[name].numel())
                parts[name] = TensorRange(start, torch.full((end - start,), torch.nan, dtype=tensors[name].dtype))
            conversion.fill(model, files, parts)
            for name, part in parts.items():
                pieces[name].append(part.values)
        joined |= {name: torch.cat(values).view(tensors[name].shape) for name, values in pieces.items()}
    return joined


@pytest.mark.parametrize("ranks", [1, 3, 50])
@pytest.mark.parametrize("folder", FOLDERS)
def test_parts_of_every_tensor_join_to_transformers_own(
    folder: str, ranks: int, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(folder)
    ours = parts_of(path, torch.bfloat16, ranks)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)
    theirs = model.state_dict()
    tied = theirs.keys() - ours.keys()
    assert tied == ({"lm_head.weight"} if folder == "tiny_model" else set())
    assert [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])] == []
    assert ours.keys() <= theirs.keys()


def test_a_part_knows_the_rows_that_it_cuts() -> None:
    part = TensorRange(5, torch.zeros(4))  # entries 5 to 8 of [4, 3] are in rows 1 and 2
    assert part.rows((4, 3)) == (1, 3)
    part.cut(torch.arange(12.0).view(4, 3)[1:3], 1)
    assert part.values.tolist() == [5, 6, 7, 8]


def test_buffers_that_no_file_carries_are_computed_as_by_transformers(deepseek_v3_model: Path) -> None:
    ours = dict(empty_model(deepseek_v3_model, torch.bfloat16, "eager", "padded").named_buffers())
    theirs = dict(AutoModelForCausalLM.from_pretrained(deepseek_v3_model, dtype=torch.bfloat16).named_buffers())
    assert {name: buffer.dtype for name, buffer in ours.items()} == {name: b.dtype for name, b in theirs.items()}
    tables = [name for name in theirs if name.endswith("inv_freq")]
    assert tables and all(torch.equal(ours[name], theirs[name]) for name in tables)


@pytest.fixture
def folder(untied_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untied_model, tmp_path / "model"))


def refusal(folder: Path) -> str:
    model = empty_model(folder, torch.float32, "eager", "padded")
    with pytest.raises(RunFailed) as refused:
        conversions(model, CheckpointFiles(folder))
    return str(refused.value)


def change(folder: Path, **changes: Tensor | None) -> None:
    """Replaces tensors in the folder's file; None removes a tensor. Names have __ for a dot."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        name = name.replace("__", ".")
        tensors.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    "changes, problem",
    [
        ({"model__norm__weight": None}, "lack model.norm.weight (1 tensors differ"),
        ({"lm_head__weight": None, "model__norm__weight": None}, "lack lm_head.weight (2 tensors differ"),
        ({"v_head__weight": torch.zeros(1)}, "have v_head.weight, which the model lacks"),
        ({"norm__weight": torch.zeros(64)}, "have norm.weight, which the model lacks"),  # beside model.norm.weight
        ({"model__norm__weight": torch.zeros(3)}, "have model.norm.weight in the shape (3,), the model in (64,)"),
    ],
)
def test_a_refusal_names_the_tensor_that_does_not_fit(
    folder: Path, changes: dict[str, Tensor | None], problem: str
) -> None:
    change(folder, **changes)
    assert re.search(rf"files in {folder} {re.escape(problem)}", refusal(folder))


def test_tensors_that_transformers_ignores_are_no_reason_to_refuse(folder: Path) -> None:
    change(folder, model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(16))
    parts_of(folder, torch.float32, 1)


def test_files_with_both_tied_tensors_must_have_one_value_for_them(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    problem = refusal(folder)
    assert "ties model.embed_tokens.weight to lm_head.weight, and the files have different values" in problem
    change(folder, lm_head__weight=load_file(folder / "model.safetensors")["model.embed_tokens.weight"])
    assert "model.norm.weight" in parts_of(folder, torch.float32, 2)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.bin")
    with pytest.raises(RunFailed, match=r"has neither model\.safetensors nor model\.safetensors\.index\.json"):
        CheckpointFiles(folder)
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(RunFailed, match=r"lacks model-00002-of-00002\.safetensors, which its"):
        CheckpointFiles(folder)
