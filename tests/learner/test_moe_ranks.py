"""Mixtures of experts on two real ZeRO-3 ranks: balance, saved state, and blocks with a module per expert."""

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
    """Ranks' processes get these modules' classes without importing them."""
    for module in (dense, tiny, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)


Start = Callable[..., list[Any]]


@pytest.fixture
def start(launch: Launch) -> Start:
    """Starts a learner of 2 ranks."""

    def start(model: Path, *overrides: str, kind: type[LearnerRank] = tiny.TellingRank) -> list[Any]:
        config: LearnerConfig = compose([*tiny_overrides(model), *overrides]).learner
        return launch(config, model, 2, kind=kind)

    return start


def biases(handles: list[Any]) -> list[Tensor]:
    """Of each rank: the one selection bias of the tiny DeepSeek-V3."""

    def read(rank: LearnerRank) -> Tensor:
        [bias] = [buffer for name, buffer in rank.engine.module.named_buffers() if name.endswith("correction_bias")]
        return bias.clone()

    return ray.get([handle.__ray_call__.remote(read) for handle in handles])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_ranks_move_the_bias_alike_a_thousandth_at_a_time_and_a_saved_state_goes_on_with_it(
    start: Start, deepseek_v3_model: Path, tmp_path: Path, dtype: str
) -> None:
    settings = (f"learner.dtype={dtype}", "learner.moe.bias_update_rate=0.001")
    handles, samples = start(deepseek_v3_model, *settings), make_samples(3)
    [began, _] = biases(handles)
    ray.get([handle.keep_reference.remote(False) for handle in handles])
    policy = logprobs(handles, samples)
    sums = step(handles, 0)
    after_one = biases(handles)
    assert after_one[0].dtype == torch.float32
    torch.testing.assert_close((after_one[0] - began).abs(), torch.full((8,), 0.001), atol=1e-7, rtol=0)
    assert sums[0]["moe/imbalance"] == sums[1]["moe/imbalance"] > 1
    # The reference keeps its bias, and gives the policy's back.
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


def test_muon_steps_attention_and_routers_and_adam_stacks_of_experts_and_a_saved_state_goes_on(
    start: Start, deepseek_v3_model: Path, tmp_path: Path
) -> None:
    handles = start(deepseek_v3_model, "learner.optimizer=muon")
    before = state(handles)
    step(handles, 0)
    after = state(handles)
    layer = "model.layers.1."
    assert f"momentum_buffer {layer}mlp.gate.weight" in after and f"exp_avg {layer}mlp.experts.down_proj" in after
    for name in ("self_attn.kv_b_proj.weight", "mlp.gate.weight", "mlp.experts.down_proj"):
        change = after[f"master {layer}{name}"] - before[f"master {layer}{name}"]
        assert 1e-5 < np.sqrt((change**2).mean()) <= 1e-3, name  # the rate is 1e-3
    save(handles, tmp_path)
    resumed = start(deepseek_v3_model, "learner.optimizer=muon")
    load(resumed, tmp_path)
    step(handles, 1)
    step(resumed, 1)
    assert differing(state(handles), state(resumed)) == []


class SeparateExperts(nn.Module):
    """A block as models from outside transformers have it, with a routing that shows the trap: by the rank."""

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


class SeparateExpertsRank(dense.ProbedRank):
    def connect(self, address: str, rank: int, timeout_s: float) -> None:
        from rlframe.learner import rank as deepspeed

        load = deepspeed.load_model
        deepspeed.load_model = lambda *arguments: put_experts_in(load(*arguments))
        try:
            super().connect(address, rank, timeout_s)
        finally:
            deepspeed.load_model = load


def test_ranks_whose_tokens_visit_different_experts_do_not_wait_for_each_other(
    start: Start, untied_model: Path
) -> None:
    from rlframe.batch.samples import collate, shard
    from rlframe.model.policy import Policy, load_model
    from rlframe.types import PACKED_ATTENTION

    handles = start(untied_model, "learner.max_grad_norm=1e9", kind=SeparateExpertsRank)
    gradients = dense.gradients(handles, dense.make_samples(), 128, dense.OBJECTIVE)
    expected: dict[str, Tensor] = {}
    for rank, share in enumerate(shard(dense.make_samples(), 2, 128)):
        policy = Policy(put_experts_in(load_model(untied_model, torch.float32, PACKED_ATTENTION), rank), torch.float32)
        for samples in share:
            packed = collate(samples)
            dense.OBJECTIVE.loss(*policy(packed, 1.0), packed).backward()
        for name, parameter in policy.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            expected[name] = expected.get(name, 0) + gradient
    assert any(f"experts.{EXPERTS - 1}" in name for name in gradients)
    for name, gradient in gradients.items():
        wanted = expected[PREFIX + name].numpy()
        assert np.abs(wanted).max() > 0
        assert np.abs(gradient - wanted).max() < 1e-4 * np.abs(wanted).max(), name
