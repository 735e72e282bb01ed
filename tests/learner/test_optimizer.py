"""AdamW (on the device and offloaded) and Muon on real ZeRO-3 ranks, against their papers' formulas of a first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlframe.batch.shares import to_shares
from rlframe.learner.config import LearnerConfig
from rlframe.learner.optimizer import ADAM_EPS, rms_scale
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny.learner import OBJECTIVE, differing, load, make_samples, save, state, step

HIDDEN = "model.layers.0.mlp.down_proj.weight"  # [64, 128]


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> LearnerConfig:
    return compose([*tiny_overrides(tiny_model), "learner.max_grad_norm=1e9"]).learner


def gradient(handles: list[Any], name: str) -> np.ndarray:
    """The gradient that a step would use; it is discarded."""

    def accumulated(rank: Any, share: Any) -> np.ndarray:
        from deepspeed.utils import safe_get_full_grad

        rank.updater.accumulate(share, [rank._collate(samples) for samples in share], OBJECTIVE, first=True)
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
    np.testing.assert_allclose(
        first_change(two, HIDDEN), -1e-3 * slope / (np.abs(slope) + ADAM_EPS), rtol=1e-3, atol=1e-7
    )
    offloaded = launch(config.model_copy(update={"offload_optimizer": True, "offload_parameters": True}), tiny_model, 2)
    step(offloaded, 0)
    on_host, on_device = state(offloaded), state(two)
    assert on_host.keys() == on_device.keys()
    assert max(float(np.abs(on_host[name] - on_device[name]).max()) for name in on_device) < 1e-7


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
