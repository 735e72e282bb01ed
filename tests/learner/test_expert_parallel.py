"""Experts spread over real ranks by DeepSpeed's AutoEP: the same numbers, weights and saved state as without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from safetensors.torch import load_file
from torch import Tensor

from rlframe.learner.config import LearnerConfig
from rlframe.learner.shards import Saved
from rlframe.model.checkpoint_names import without_expert_parallel
from rlframe.weights.publish import Snapshot
from rlframe.weights.slices import rebuild
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny.learner import load, logprobs, make_samples, save, step

Start = Callable[..., list[Any]]


@pytest.fixture
def start(qwen3_moe_model: Path, launch: Launch) -> Start:
    def start(ranks: int, *overrides: str) -> list[Any]:
        settings = [*tiny_overrides(qwen3_moe_model), "learner.max_grad_norm=0.01", *overrides]
        config: LearnerConfig = compose(settings).learner
        return launch(config, qwen3_moe_model, ranks)

    return start


def experts_of(rank: Any) -> set[int]:
    """How many experts this rank has in a layer, by its parameters."""
    named = rank.engine.module.named_parameters()
    return {parameter.ds_shape[0] for name, parameter in named if ".experts." in name}


def published(handles: list[Any], version: int) -> tuple[set[str], dict[str, Tensor]]:
    """What engines are told to expect, and what they would load before they name it as checkpoints do."""
    ray.get([handle.prepare_publishing.remote(1 << 20, 1) for handle in handles])
    snapshot = Snapshot(version, ray.get([handle.publish.remote(version, whole=True) for handle in handles]))
    tensors = {name: tensor for parts in snapshot.read() for name, tensor in rebuild(parts).items()}
    return set(snapshot.shares[0].names), without_expert_parallel(tensors)


def saved(folder: Path, kind: str) -> dict[str, Tensor]:
    """One kind of tensor of every parameter in a checkpoint, whole."""
    state = Saved(folder)
    return without_expert_parallel(
        {n: state.read(n, kind, 0, int(np.prod(shape))).view(shape) for n, shape in state.shapes.items()}
    )


def farthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference between tensors of the same name, in parts of the tensor's largest value."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max() / one[name].abs().max()) for name in one)


def test_spread_experts_compute_train_publish_export_and_resume_as_if_every_rank_had_them_all(
    start: Start, tmp_path: Path
) -> None:
    samples = make_samples(3)
    gathered, spread = start(2), start(2, "learner.expert_parallel=2", "learner.gradient_checkpointing=true")
    assert ray.get(spread[0].__ray_call__.remote(experts_of)) == {4}
    one, other = logprobs(gathered, samples), logprobs(spread, samples)
    assert max(float(np.abs(a - b).max()) for a, b in zip(one, other, strict=True)) < 1e-4

    before, after = step(gathered, 0)[0], step(spread, 0)[0]
    same = ("grad_norm", "loss", "moe/imbalance", "moe/unused_experts", "moe/router_entropy")
    assert [after[name] for name in same] == pytest.approx([before[name] for name in same], rel=1e-4)
    for name, handles in (("gathered", gathered), ("spread", spread)):
        save(handles, tmp_path / name, tmp_path / f"{name}_export")
    gradients = [saved(tmp_path / name, "exp_avg") for name in ("gathered", "spread")]  # a tenth of them, by now
    assert farthest(*gradients) < 1e-4

    exported = [load_file(tmp_path / f"{name}_export" / "model.safetensors") for name in ("gathered", "spread")]
    assert "model.layers.1.mlp.experts.7.down_proj.weight" in exported[1]
    assert farthest(*exported) < 1e-3
    names, tensors = published(spread, 1)
    assert names == exported[1].keys()
    assert farthest(tensors, published(gathered, 1)[1]) < 1e-3

    with pytest.raises(ray.exceptions.RayTaskError, match=r"learner.expert_parallel null or not as it was there"):
        load(gathered, tmp_path / "spread")
    four = start(
        4, "learner.expert_parallel=2", "learner.offload_optimizer=true"
    )  # experts in two halves, and a half in two slices
    load(four, tmp_path / "spread")
    resumed = published(four, 1)[1]
    assert [name for name in tensors if not torch.equal(resumed[name], tensors[name])] == []
    save(four, tmp_path / "four")
    assert farthest(saved(tmp_path / "four", "exp_avg"), gradients[1]) == 0.0
    assert step(four, 1)[0]["grad_norm"] == pytest.approx(step(spread, 1)[0]["grad_norm"], rel=1e-3)
