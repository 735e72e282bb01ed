"""The exported folder: its files' shares of the weights, and what programs that open it read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from rlframe.learner.export import Export, export_plan
from rlframe.learner.source import ParamMeta
from rlframe.record.manifest import first_fault, seal, unreadable
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny.learner import exported, save, state, step


def meta(**sizes: int) -> list[ParamMeta]:
    return [ParamMeta(name, torch.float32, (size,)) for name, size in sizes.items()]


def test_neighbours_share_a_file_and_files_have_equal_bytes() -> None:
    plan = export_plan(meta(a=1, b=1, c=1, d=1), 2)
    assert plan.owners == {"a": 0, "b": 0, "c": 1, "d": 1}
    assert plan.files["b"] == "model-00001-of-00002.safetensors" != plan.files["c"]
    assert plan.bytes == 16


def test_ranks_behind_a_large_tensor_write_nothing() -> None:
    # Shares of 4 ranks end at 3, 6, 9 and 12: `a` begins in the first, `b` and `c` in the last.
    plan = export_plan(meta(a=10, b=1, c=1), 4)
    assert plan.owners == {"a": 0, "b": 3, "c": 3}
    assert set(plan.files.values()) == {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}


def test_one_writer_makes_one_file_without_an_index() -> None:
    assert set(export_plan(meta(a=1, b=2), 1).files.values()) == {"model.safetensors"}


def test_no_rank_has_more_than_its_share_and_a_tensor() -> None:
    rng = np.random.default_rng(0)
    for ranks in range(1, 9):
        sizes = {str(index): int(size) for index, size in enumerate(rng.integers(1, 100, 60))}
        plan = export_plan(meta(**sizes), ranks)
        held = [sum(size for name, size in sizes.items() if plan.owners[name] == rank) for rank in range(ranks)]
        assert sum(held) == sum(sizes.values()) and max(held) < sum(sizes.values()) / ranks + max(sizes.values())
        assert list(plan.owners.values()) == sorted(plan.owners.values())


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_number_of_ranks_exports_the_learners_weights(
    ranks: int, qwen3_moe_model: Path, launch: Launch, tmp_path: Path
) -> None:
    config = compose([*tiny_overrides(qwen3_moe_model), "learner.lr=0.01"]).learner
    handles = launch(config, qwen3_moe_model, ranks)
    step(handles, 0)
    reports = save(handles, tmp_path / "learner", tmp_path / "huggingface")
    files = sorted(path.name for path in (tmp_path / "huggingface").glob("*.safetensors"))
    assert len(files) == ranks
    trained = state(handles)
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "huggingface")
    assert opened.dtype == torch.float32
    for name, parameter in opened.named_parameters():
        assert np.array_equal(parameter.detach().numpy(), trained[f"model {name}"]), name
    assert exported(tmp_path / "huggingface").keys() == exported(qwen3_moe_model).keys()
    if ranks > 1:
        index = json.loads((tmp_path / "huggingface" / "model.safetensors.index.json").read_text())
        for file in files:
            with safe_open(tmp_path / "huggingface" / file, "np") as opened_file:
                names = set(opened_file.keys())
            assert names == {name for name, place in index["weight_map"].items() if place == file}
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in exported(tmp_path / "huggingface").values())
    written = [file for report in reports for file in report.files]
    assert sorted(file.path for file in written) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert [unreadable(file) for file in written] == [None] * len(written)
    seal(tmp_path, written)
    assert first_fault(tmp_path) is None
    (tmp_path / "huggingface" / files[-1]).unlink()
    assert first_fault(tmp_path) == f"huggingface/{files[-1]} is missing"


def test_an_export_of_dequantised_weights_does_not_say_that_they_are_quantised(
    tiny_model: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in tiny_model.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    settings = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(settings | {"quantization_config": {"quant_method": "mxfp4"}}))
    weights = {"model.norm.weight": torch.ones(64, dtype=torch.bfloat16)}
    plan = export_plan([ParamMeta("model.norm.weight", torch.bfloat16, (64,))], 1)
    Export(plan=plan, rank=0, weights=weights, adapters={}).write(tmp_path / "export", base=base, adapter=None)
    assert "quantization_config" not in json.loads((tmp_path / "export" / "config.json").read_text())
    assert AutoConfig.from_pretrained(tmp_path / "export").dtype == torch.bfloat16
