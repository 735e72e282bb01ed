"""Adapters on real ZeRO-3 ranks: only adapters train and are saved, and exported or published weights are merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from safetensors.numpy import load_file

from rlframe.learner.config import LearnerConfig
from rlframe.learner.merge import _add_product, _product
from rlframe.model.checkpoint_names import checkpoint_name
from rlframe.model.config import LoraConfig
from rlframe.rollout.rebuild import rebuild
from rlframe.weights.snapshot import Snapshot
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny.learner import differing, exported, load, save, state, step
from tests.tiny.ranks import RankProcesses

LORA = "{rank: 3, alpha: 6, targets: [q_proj, down_proj]}"


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> LearnerConfig:
    """A learning rate that moves adapters visibly in two steps."""
    return compose([*tiny_overrides(tiny_model), f"learner.lora={LORA}", "learner.lr=0.05"]).learner


@pytest.fixture(scope="module")
def two(config: LearnerConfig, tiny_model: Path, processes: RankProcesses) -> list[Any]:
    handles = processes.launch(config, tiny_model, 2)
    step(handles, 0)
    step(handles, 1)
    return handles


def test_checkpoint_names_lose_the_additions_of_adapters() -> None:
    assert checkpoint_name("model.layers.0.mlp.down_proj.base_layer.weight") == "model.layers.0.mlp.down_proj.weight"
    assert checkpoint_name("model.layers.0.mlp.down_proj.lora_A.default.weight") is None
    assert checkpoint_name("model.norm.weight") == "model.norm.weight"


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 50])
def test_shards_of_the_product_make_the_whole_product(ranks: int) -> None:
    torch.manual_seed(0)
    down, up = torch.randn(3, 7), torch.randn(5, 3)
    length = -(-35 // ranks)
    slices = [_product(down, up, rank * length, (rank + 1) * length) for rank in range(ranks)]
    torch.testing.assert_close(torch.cat(slices), (up @ down).reshape(-1))


def test_a_shard_on_another_device_than_the_adapters_is_merged_there() -> None:
    down, up = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [4.0]])  # B A = [[3, 6], [4, 8]]
    shard = torch.tensor([10.0, 20.0, 0.0], dtype=torch.bfloat16)  # entries 2 and 3, and padding
    _add_product(shard, down, up, 2, scale=0.5)
    assert shard.tolist() == [12, 24, 0]
    _add_product(shard.to("meta"), down, up, 2, scale=0.5)  # in place of a host beside a GPU


def test_only_adapters_train_and_no_other_bit_changes(
    two: list[Any], config: LearnerConfig, tiny_model: Path, launch: Launch
) -> None:
    untrained = state(launch(config, tiny_model, 1))
    moved = {name.removeprefix("model ") for name in differing(untrained, state(two)) if name.startswith("model ")}
    assert len(moved) == 2 * 2 * 2  # layers, targets, A and B
    assert all(".lora_" in name for name in moved)


def test_a_checkpoint_holds_adapters_only_and_loads_on_fewer_ranks(
    two: list[Any], config: LearnerConfig, tiny_model: Path, launch: Launch, tmp_path: Path
) -> None:
    save(two, tmp_path)
    saved = {key.partition("/")[2] for file in tmp_path.iterdir() for key in load_file(file)}
    assert len(saved) == 8 and all(".lora_" in name for name in saved)
    one = launch(config, tiny_model, 1)
    load(one, tmp_path)
    assert differing(state(two), state(one)) == []


def test_the_export_equals_peft_merging_the_adapter_folder(two: list[Any], tiny_model: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    trained = state(two)
    save(two, tmp_path / "learner", tmp_path / "huggingface")
    assert differing(trained, state(two)) == []  # merging for the export left no trace
    ours = dict(AutoModelForCausalLM.from_pretrained(tmp_path / "huggingface").named_parameters())
    base = dict(AutoModelForCausalLM.from_pretrained(tiny_model).named_parameters())
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path / "adapter")
    merged = dict(theirs.merge_and_unload().named_parameters())
    assert ours.keys() == merged.keys()
    for name, tensor in merged.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=1e-6)
    touched = {name for name in ours if float((ours[name] - base[name]).detach().abs().max()) > 1e-2}
    assert touched == {
        f"model.layers.{layer}.{target}.weight" for layer in (0, 1) for target in ("self_attn.q_proj", "mlp.down_proj")
    }


def test_published_weights_equal_exported_weights(two: list[Any], tmp_path: Path) -> None:
    save(two, tmp_path / "learner", tmp_path / "whole")
    ray.get([handle.prepare_publishing.remote(1 << 20, 1, False) for handle in two])
    snapshot = Snapshot(version=1, ranks=ray.get([handle.publish.remote(1, whole=True) for handle in two]))
    published = {name: tensor for shards in snapshot.read() for name, tensor in rebuild(shards).items()}
    weights = exported(tmp_path / "whole")
    assert set(snapshot.names) == published.keys() == weights.keys()
    assert [name for name in published if not np.array_equal(published[name].numpy(), weights[name])] == []


def test_an_error_names_a_target_that_the_model_lacks(config: LearnerConfig, tiny_model: Path, launch: Launch) -> None:
    wrong = config.model_copy(update={"lora": LoraConfig(rank=1, alpha=1.0, targets=["query"])})
    with pytest.raises(ray.exceptions.RayTaskError, match="query"):
        launch(wrong, tiny_model, 1)
