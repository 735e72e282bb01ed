"""AdamW on the device and offloaded, and Muon, on real ZeRO-3 ranks, against what their papers say of a first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlframe.batch.samples import shard
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
    """What a step would start from; it is thrown away."""

    def accumulated(rank: Any, share: Any) -> np.ndarray:
        from deepspeed.utils import safe_get_full_grad

        rank.accumulate(share, [rank._collate(samples) for samples in share], OBJECTIVE, first=True)
        found = safe_get_full_grad(dict(rank.engine.module.named_parameters())[f"model.{name}"]).numpy().copy()
        rank.optimizer.zero_grad()
        return found

    shares = shard(make_samples(), len(handles), 128)
    calls = [h.__ray_call__.remote(accumulated, share) for h, share in zip(handles, shares, strict=True)]
    return ray.get(calls)[0]


def first_change(handles: list[Any], name: str) -> np.ndarray:
    before = state(handles)[f"master {name}"]
    step(handles, 0)
    return state(handles)[f"master {name}"] - before


def test_the_first_step_of_adamw_is_the_rate_against_the_gradient_s_sign_and_offloaded_it_steps_the_same(
    config: LearnerConfig, tiny_model: Path, launch: Launch
) -> None:
    two = launch(config, tiny_model, 2)
    slope = gradient(two, HIDDEN)
    np.testing.assert_allclose(
        first_change(two, HIDDEN), -1e-3 * slope / (np.abs(slope) + ADAM_EPS), rtol=1e-3, atol=1e-7
    )
    offloaded = launch(config.model_copy(update={"offload_optimizer": True, "offload_parameters": True}), tiny_model, 2)
    step(offloaded, 0)
    there, here = state(offloaded), state(two)
    assert there.keys() == here.keys()
    assert max(float(np.abs(there[name] - here[name]).max()) for name in here) < 1e-7


def test_one_rate_serves_both_a_wide_and_a_tall_matrix_for_muon() -> None:
    # An orthogonal 4 x 16 has entries of 1/4 on average, and DeepSpeed leaves it as it is; a 16 x 4 it doubles.
    assert rms_scale(4, 16) * 0.25 == pytest.approx(0.2)
    assert rms_scale(16, 4) * 0.25 * 2 == pytest.approx(0.2)


@pytest.fixture(scope="module")
def muon(config: LearnerConfig) -> LearnerConfig:
    return config.model_copy(update={"optimizer": "muon"})


def test_muon_moves_a_matrix_along_the_orthogonal_one_next_to_its_gradient_and_embeddings_as_adam_does(
    muon: LearnerConfig, tiny_model: Path, launch: Launch
) -> None:
    two = launch(muon, tiny_model, 2)
    left, _, right = np.linalg.svd(gradient(two, HIDDEN), full_matrices=False)
    embedding = np.sign(gradient(two, "model.embed_tokens.weight"))
    before = state(two)
    step(two, 0)
    after = state(two)
    change = {
        name: after[f"master {name}"] - before[f"master {name}"] for name in (HIDDEN, "model.embed_tokens.weight")
    }
    orthogonal = -left @ right
    cosine = (change[HIDDEN] * orthogonal).sum() / np.linalg.norm(change[HIDDEN]) / np.linalg.norm(orthogonal)
    assert cosine > 0.95
    assert np.sqrt((change[HIDDEN] ** 2).mean()) == pytest.approx(0.2 * 1e-3, rel=0.25)  # singular values 0.7 to 1.2
    reached = np.abs(change["model.embed_tokens.weight"]) > 5e-4
    assert reached.any() and np.array_equal(np.sign(change["model.embed_tokens.weight"])[reached], -embedding[reached])


def test_a_skipped_step_leaves_muon_s_momentum_and_its_state_goes_to_another_number_of_ranks(
    muon: LearnerConfig, tiny_model: Path, launch: Launch, tmp_path: Path
) -> None:
    two = launch(muon, tiny_model, 2)
    step(two, 0)
    before = state(two)
    assert f"momentum_buffer {HIDDEN}" in before and "exp_avg model.embed_tokens.weight" in before
    spoiled = [replace(s, advantages=s.advantages * np.float32(np.nan)) for s in make_samples()]
    assert [answer["skipped"] for answer in step(two, 1, spoiled)] == [1, 1]
    assert differing(before, state(two)) == []
    assert [answer["skipped"] for answer in step(two, 2)] == [0, 0]
    save(two, tmp_path)
    one = launch(muon, tiny_model, 1)
    load(one, tmp_path)
    assert differing(state(two), state(one)) == []
