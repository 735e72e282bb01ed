"""AdamW (on the device and offloaded) and Muon on real ZeRO-3 ranks, against their papers' formulas of a first step."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from torch import nn

from rlframe.batch.collate import collate
from rlframe.batch.shares import to_shares
from rlframe.learner import optimizer
from rlframe.learner.bodies import to_micro_batches
from rlframe.learner.config import LearnerConfig
from rlframe.learner.optimizer import build, rms_scale
from rlframe.model.policy import PREFIX, Policy
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny.learner import OBJECTIVE, InspectedRank, differing, load, make_samples, save, state, step
from tests.tiny.models import load_model

NORM = "model.layers.0.input_layernorm.weight"  # [64]
HIDDEN = "model.layers.0.mlp.down_proj.weight"  # [64, 128]


class OneGroupRank(InspectedRank):
    """A rank whose optimizer has all parameters in one group."""

    def connect(self, *arguments: Any) -> None:
        split, optimizer._by_decay = optimizer._by_decay, lambda parameters, decay: [{"params": parameters}]
        try:
            super().connect(*arguments)
        finally:
            optimizer._by_decay = split


@pytest.fixture(scope="module", autouse=True)
def by_value() -> None:
    """Sends this module's classes to the ranks' processes, which cannot import it."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> LearnerConfig:
    return compose([*tiny_overrides(tiny_model), "learner.max_grad_norm=1e9"]).learner


def gradient(handles: list[Any], name: str) -> np.ndarray:
    """The gradient that a step would use; it is discarded."""

    def accumulated(rank: Any, share: Any) -> np.ndarray:
        from deepspeed.utils import safe_get_full_grad

        [samples] = to_micro_batches([share], "shared")
        rank.updater.accumulate(samples, [collate(micro_batch) for micro_batch in samples], OBJECTIVE, first=True)
        values = safe_get_full_grad(dict(rank.engine.module.named_parameters())[f"model.{name}"]).numpy().copy()
        rank.optimizer.zero_grad()
        return values

    shares = to_shares(make_samples(), len(handles), 128)
    calls = [h.__ray_call__.remote(accumulated, share) for h, share in zip(handles, shares, strict=True)]
    return ray.get(calls)[0]


def first_change(handles: list[Any], name: str) -> np.ndarray:
    initial = state(handles)[f"master {name}"]
    step(handles, 0)
    return state(handles)[f"master {name}"] - initial


def test_adamw_first_steps_by_the_rate_against_the_gradients_sign(
    config: LearnerConfig, tiny_model: Path, launch: Launch
) -> None:
    two = launch(config, tiny_model, 2)
    slope = gradient(two, HIDDEN)
    np.testing.assert_allclose(first_change(two, HIDDEN), -1e-3 * slope / (np.abs(slope) + 1e-8), rtol=1e-3, atol=1e-7)
    offloaded = launch(config.model_copy(update={"offload_optimizer": True, "offload_parameters": True}), tiny_model, 2)
    step(offloaded, 0)
    on_host, on_device = state(offloaded), state(two)
    assert on_host.keys() == on_device.keys()
    assert max(float(np.abs(on_host[name] - on_device[name]).max()) for name in on_device) < 1e-7


def test_adamw_divides_by_the_configured_epsilon_and_decays_matrices_only(
    config: LearnerConfig, tiny_model: Path, launch: Launch
) -> None:
    one = launch(config.model_copy(update={"adam_epsilon": 1e-2, "weight_decay": 0.5}), tiny_model, 1)
    slopes = {name: gradient(one, name) for name in (HIDDEN, NORM)}
    initial = state(one)
    step(one, 0)
    stepped = state(one)
    for name, decay in ((HIDDEN, 0.5), (NORM, 0.0)):
        master, slope = initial[f"master {name}"], slopes[name]
        expected = -1e-3 * (slope / (np.abs(slope) + 1e-2) + decay * master)
        np.testing.assert_allclose(stepped[f"master {name}"] - master, expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_matrix_decays_and_no_norm_does(config: LearnerConfig, tiny_model: Path, name: str) -> None:
    model: Any = load_model(tiny_model, torch.float32, config.attention, "shared")
    policy = Policy(model, torch.float32, "shared")
    settings = config.model_copy(update={"optimizer": name, "weight_decay": 0.1, "adam_epsilon": 1e-15})
    groups = build(policy, settings).param_groups
    decays = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    names = {name.removeprefix(PREFIX): decays[id(parameter)] for name, parameter in policy.named_parameters()}
    assert {name: decay for name, decay in names.items() if "norm" in name} == dict.fromkeys(
        [name for name in names if "norm" in name], 0.0
    )
    assert {decay for name, decay in names.items() if "norm" not in name} == {0.1}
    assert {group["eps"] for group in groups if "eps" in group} == {1e-15}


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_stacked_biases_and_decay_rates_are_no_matrices(config: LearnerConfig, name: str) -> None:
    model = nn.Module()
    model.embed, model.head = nn.Embedding(4, 4), nn.Linear(4, 4, bias=False)
    model.experts = nn.ParameterDict({"up": torch.ones(2, 3), "up_bias": torch.ones(2, 3)})
    model.A_log = nn.Parameter(torch.ones(2, 3))
    model.model, model.get_input_embeddings = model, lambda: model.embed
    settings = config.model_copy(update={"optimizer": name, "weight_decay": 0.1})
    groups = build(model, settings).param_groups
    of = {id(parameter): group for group in groups for parameter in group["params"]}
    decays = [of[id(p)]["weight_decay"] for p in (model.experts["up"], model.experts["up_bias"], model.A_log)]
    assert decays == [0.1, 0.0, 0.0]
    assert name == "adamw" or [of[id(p)]["use_muon"] for p in model.experts.values()] == [True, False]


def test_a_saved_state_knows_no_parameter_groups(
    config: LearnerConfig, tiny_model: Path, launch: Launch, tmp_path: Path
) -> None:
    one_group, two_groups = launch(config, tiny_model, 2, kind=OneGroupRank), launch(config, tiny_model, 1)
    step(one_group, 0)
    save(one_group, tmp_path)
    load(two_groups, tmp_path)
    assert differing(state(one_group), state(two_groups)) == []


def test_one_rate_serves_wide_and_tall_matrices_for_muon() -> None:
    # An orthogonal 4 x 16 matrix has entries of 1/4 on average. DeepSpeed keeps it, and doubles a 16 x 4 matrix.
    assert rms_scale(4, 16) * 0.25 == pytest.approx(0.2)
    assert rms_scale(16, 4) * 0.25 * 2 == pytest.approx(0.2)


@pytest.fixture(scope="module")
def muon(config: LearnerConfig) -> LearnerConfig:
    return config.model_copy(update={"optimizer": "muon"})


def test_muon_moves_a_matrix_along_the_gradients_orthogonal_factor(
    muon: LearnerConfig, tiny_model: Path, launch: Launch
) -> None:
    two = launch(muon, tiny_model, 2)
    left, _, right = np.linalg.svd(gradient(two, HIDDEN), full_matrices=False)
    embedding = np.sign(gradient(two, "model.embed_tokens.weight"))
    initial = state(two)
    step(two, 0)
    stepped = state(two)
    change = {
        name: stepped[f"master {name}"] - initial[f"master {name}"] for name in (HIDDEN, "model.embed_tokens.weight")
    }
    orthogonal = -left @ right
    cosine = (change[HIDDEN] * orthogonal).sum() / np.linalg.norm(change[HIDDEN]) / np.linalg.norm(orthogonal)
    assert cosine > 0.95
    assert np.sqrt((change[HIDDEN] ** 2).mean()) == pytest.approx(0.2 * 1e-3, rel=0.25)  # singular values 0.7 to 1.2
    reached = np.abs(change["model.embed_tokens.weight"]) > 5e-4
    assert reached.any() and np.array_equal(np.sign(change["model.embed_tokens.weight"])[reached], -embedding[reached])


def test_a_skipped_step_leaves_muons_momentum_and_it_loads_on_one_rank(
    muon: LearnerConfig, tiny_model: Path, launch: Launch, tmp_path: Path
) -> None:
    two = launch(muon, tiny_model, 2)
    step(two, 0)
    stepped = state(two)
    assert f"momentum_buffer {HIDDEN}" in stepped and "exp_avg model.embed_tokens.weight" in stepped
    spoiled = [replace(s, advantages=s.advantages * np.float32(np.nan)) for s in make_samples()]
    assert [answer["skipped"] for answer in step(two, 1, spoiled)] == [1, 1]
    assert differing(stepped, state(two)) == []
    assert [answer["skipped"] for answer in step(two, 2)] == [0, 0]
    save(two, tmp_path)
    one = launch(muon, tiny_model, 1)
    load(one, tmp_path)
    assert differing(state(two), state(one)) == []
