"""Experts spread over real ranks by DeepSpeed's AutoEP: equal numbers, weights and saved state as without AutoEP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from torch import Tensor

from rlframe.learner.config import LearnerConfig
from rlframe.learner.shards import SavedState
from rlframe.model.checkpoint_names import without_expert_parallel
from rlframe.rollout.rebuild import rebuild
from rlframe.weights.snapshot import Snapshot
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny.learner import exported, load, logprobs, make_samples, save, step

Start = Callable[..., list[Any]]


@pytest.fixture
def start(qwen3_moe_model: Path, launch: Launch) -> Start:
    def start(ranks: int, *overrides: str) -> list[Any]:
        settings = [*tiny_overrides(qwen3_moe_model), "learner.max_grad_norm=0.01", *overrides]
        config: LearnerConfig = compose(settings).learner
        return launch(config, qwen3_moe_model, ranks)

    return start


def experts_of(rank: Any) -> set[int]:
    """Numbers of experts in the shapes of this rank's parameters."""
    named = rank.engine.module.named_parameters()
    return {parameter.ds_shape[0] for name, parameter in named if ".experts." in name}


def published(handles: list[Any], version: int) -> tuple[set[str], dict[str, Tensor]]:
    """The names that engines expect, and the tensors that engines would load."""
    ray.get([handle.prepare_publishing.remote(1 << 20, 1, False) for handle in handles])
    snapshot = Snapshot(
        version=version, ranks=ray.get([handle.publish.remote(version, whole=True) for handle in handles])
    )
    tensors = {name: tensor for shards in snapshot.read() for name, tensor in rebuild(shards).items()}
    return set(snapshot.names), without_expert_parallel(tensors)


def saved(folder: Path, kind: str) -> dict[str, Tensor]:
    """One kind of tensor of every parameter in a checkpoint, whole."""
    state = SavedState(folder)
    return without_expert_parallel(
        {n: state.read(n, kind, 0, int(np.prod(shape))).view(shape) for n, shape in state.shapes.items()}
    )


def farthest(left: dict[str, Tensor], right: dict[str, Tensor]) -> float:
    """The largest difference between tensors of one name, relative to the tensor's largest value."""
    assert left.keys() == right.keys()
    return max(float((left[name] - right[name]).abs().max() / left[name].abs().max()) for name in left)


def test_spread_experts_equal_gathered_experts_from_training_to_resuming(start: Start, tmp_path: Path) -> None:
    samples = make_samples(3)
    gathered, spread = start(2), start(2, "learner.expert_parallel=2", "learner.gradient_checkpointing=true")
    assert ray.get(spread[0].__ray_call__.remote(experts_of)) == {4}
    pairs = zip(logprobs(gathered, samples), logprobs(spread, samples), strict=True)
    assert max(float(np.abs(a - b).max()) for a, b in pairs) < 1e-4

    expected, measured = step(gathered, 0)[0], step(spread, 0)[0]
    names = ("grad_norm", "loss", "moe/imbalance", "moe/unused_experts", "moe/router_entropy")
    assert [measured[name] for name in names] == pytest.approx([expected[name] for name in names], rel=1e-4)
    for name, handles in (("gathered", gathered), ("spread", spread)):
        save(handles, tmp_path / name, tmp_path / f"{name}_export")
    gradients = [
        saved(tmp_path / name, "exp_avg") for name in ("gathered", "spread")
    ]  # after one step a tenth of the gradients
    assert farthest(*gradients) < 1e-4

    exports = [
        {key: torch.from_numpy(tensor) for key, tensor in exported(tmp_path / f"{name}_export").items()}
        for name in ("gathered", "spread")
    ]
    assert "model.layers.1.mlp.experts.7.down_proj.weight" in exports[1]
    assert farthest(*exports) < 1e-3
    names, tensors = published(spread, 1)
    assert names == exports[1].keys()
    assert farthest(tensors, published(gathered, 1)[1]) < 1e-3

    with pytest.raises(ray.exceptions.RayTaskError, match=r"learner.expert_parallel null or not as it was there"):
        load(gathered, tmp_path / "spread")
    # Two pairs of ranks: a pair shares half of the experts, in two shards.
    four = start(4, "learner.expert_parallel=2", "learner.offload_optimizer=true")
    load(four, tmp_path / "spread")
    resumed = published(four, 1)[1]
    assert [name for name in tensors if not torch.equal(resumed[name], tensors[name])] == []
    save(four, tmp_path / "four")
    assert farthest(saved(tmp_path / "four", "exp_avg"), gradients[1]) == 0.0
    assert step(four, 1)[0]["grad_norm"] == pytest.approx(step(spread, 1)[0]["grad_norm"], rel=1e-3)
