"""Mixtures of experts on two real ZeRO-3 ranks: balance, saved state, and blocks with a module for each expert."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from torch import Tensor, nn

from rlframe.learner.config import LearnerConfig
from rlframe.learner.rank import LearnerRank
from rlframe.model.policy import PREFIX
from tests.conftest import compose, tiny_overrides
from tests.learner import test_rank as dense
from tests.learner.conftest import Launch
from tests.tiny import learner as tiny
from tests.tiny.learner import differing, load, logprobs, make_samples, reference_logprobs, save, state, step

EXPERTS = 2


@pytest.fixture(scope="module", autouse=True)
def by_value() -> None:
    """Sends these modules' classes to the ranks' processes, which cannot import them."""
    for module in (dense, tiny, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)


Start = Callable[..., list[Any]]


@pytest.fixture
def start(launch: Launch) -> Start:
    """Starts a learner of 2 ranks."""

    def start(model: Path, *overrides: str, kind: type[LearnerRank] = tiny.InspectedRank) -> list[Any]:
        config: LearnerConfig = compose([*tiny_overrides(model), *overrides]).learner
        return launch(config, model, 2, kind=kind)

    return start


def biases(handles: list[Any]) -> list[Tensor]:
    """Each rank's selection bias of the tiny DeepSeek-V3, which has one."""

    def read(rank: LearnerRank) -> Tensor:
        [bias] = [buffer for name, buffer in rank.engine.module.named_buffers() if name.endswith("correction_bias")]
        return bias.clone()

    return ray.get([handle.__ray_call__.remote(read) for handle in handles])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ranks_move_equal_biases_by_a_thousandth_and_save_them(
    start: Start, deepseek_v3_model: Path, tmp_path: Path, dtype: str
) -> None:
    settings = (f"learner.dtype={dtype}", "learner.moe.bias_update_rate=0.001")
    handles, samples = start(deepseek_v3_model, *settings), make_samples(3)
    [initial, _] = biases(handles)
    ray.get([handle.keep_reference.remote(False) for handle in handles])
    policy = logprobs(handles, samples)
    sums = step(handles, 0)
    after_one = biases(handles)
    assert after_one[0].dtype == torch.float32
    torch.testing.assert_close((after_one[0] - initial).abs(), torch.full((8,), 0.001), atol=1e-7, rtol=0)
    assert sums[0]["moe/imbalance"] == sums[1]["moe/imbalance"] > 1
    # The reference has its own bias, and its forward pass leaves the policy's bias unchanged.
    assert all(map(np.array_equal, reference_logprobs(handles, samples), policy))
    assert torch.equal(biases(handles)[0], after_one[0])
    step(handles, 1)
    save(handles, tmp_path / "saved")
    saved = biases(handles)
    assert torch.equal(saved[0], saved[1])
    step(handles, 2)
    resumed = start(deepseek_v3_model, *settings)
    load(resumed, tmp_path / "saved")
    assert all(torch.equal(bias, saved[0]) for bias in biases(resumed))
    step(resumed, 2)
    assert torch.equal(biases(resumed)[1], biases(handles)[0])
    assert differing(state(handles), state(resumed)) == []


def test_muon_steps_matrices_adam_steps_experts_and_both_resume(
    start: Start, deepseek_v3_model: Path, tmp_path: Path
) -> None:
    handles = start(deepseek_v3_model, "learner.optimizer=muon")
    initial = state(handles)
    step(handles, 0)
    stepped = state(handles)
    layer = "model.layers.1."
    assert f"momentum_buffer {layer}mlp.gate.weight" in stepped and f"exp_avg {layer}mlp.experts.down_proj" in stepped
    for name in ("self_attn.kv_b_proj.weight", "mlp.gate.weight", "mlp.experts.down_proj"):
        change = stepped[f"master {layer}{name}"] - initial[f"master {layer}{name}"]
        assert 1e-5 < np.sqrt((change**2).mean()) <= 1e-3, name  # the rate is 1e-3
    save(handles, tmp_path)
    resumed = start(deepseek_v3_model, "learner.optimizer=muon")
    load(resumed, tmp_path)
    step(handles, 1)
    step(resumed, 1)
    assert differing(state(handles), state(resumed)) == []


class SeparateExperts(nn.Module):
    """A block with a module for each expert, as remote code has it; `expert` None: each rank visits its own expert."""

    def __init__(self, width: int, expert: int | None) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(width, width, bias=False) for _ in range(EXPERTS)])
        self.expert = expert

    def forward(self, hidden: Tensor) -> Tensor:
        chosen = torch.distributed.get_rank() if self.expert is None else self.expert
        return self.experts[chosen](hidden)


def put_experts_in(model: nn.Module, expert: int | None = None) -> nn.Module:
    """The tiny Llama with separate experts in place of its dense blocks, the same weights at every call."""
    torch.manual_seed(1)
    for layer in model.model.layers:
        layer.mlp = SeparateExperts(64, expert)
    return model


class SeparateExpertsRank(dense.GradientRank):
    def connect(self, address: str, rank: int, timeout_s: float) -> None:
        from rlframe.learner import rank as rank_module

        load = rank_module.load_shards

        def load_and_replace(model: nn.Module, *arguments: Any) -> None:
            load(model, *arguments)
            put_experts_in(model)

        rank_module.load_shards = load_and_replace
        try:
            super().connect(address, rank, timeout_s)
        finally:
            rank_module.load_shards = load


def test_ranks_with_tokens_for_different_experts_do_not_deadlock(start: Start, untied_model: Path) -> None:
    from rlframe.batch.collate import collate
    from rlframe.batch.shares import to_shares
    from rlframe.model.policy import Policy
    from rlframe.training import PACKED_ATTENTION
    from tests.tiny.models import load_model

    handles = start(untied_model, "learner.max_grad_norm=1e9", kind=SeparateExpertsRank)
    gradients = dense.gradients(handles, dense.make_samples(), 128, dense.OBJECTIVE)
    expected: dict[str, Tensor] = {}
    for rank, share in enumerate(to_shares(dense.make_samples(), 2, 128)):
        model = put_experts_in(load_model(untied_model, torch.float32, PACKED_ATTENTION, "shared"), rank)
        policy = Policy(model, torch.float32, "shared")
        for samples in share:
            packed = collate(samples)
            dense.OBJECTIVE.loss(*policy(packed, 1.0), packed).backward()
        for name, parameter in policy.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            expected[name] = expected.get(name, 0) + gradient
    assert any(f"experts.{EXPERTS - 1}" in name for name in gradients)
    for name, gradient in gradients.items():
        target = expected[PREFIX + name].numpy()
        assert np.abs(target).max() > 0
        assert np.abs(gradient - target).max() < 1e-4 * np.abs(target).max(), name
