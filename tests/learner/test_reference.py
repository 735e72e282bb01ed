"""A reference on real ZeRO-3 ranks: it is frozen, refreshed and restored, and its KL enters loss and reward."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlframe.batch.records import to_record
from rlframe.batch.samples import to_probes
from rlframe.batch.sequences import to_train_sample
from rlframe.learner.config import LearnerConfig
from rlframe.learner.group import LearnerGroup
from rlframe.objective.kl import KL
from rlframe.objective.objective import Objective
from rlframe.training import GroupRecord, TrainSample
from rlframe.types import Completion, Prompt, RolloutGroup, ScoredGroup, VersionSpan
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny.learner import OBJECTIVE, load, logprobs, make_samples, reference_logprobs, save, step

Start = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> LearnerConfig:
    return compose(tiny_overrides(tiny_model)).learner.model_copy(update={"max_grad_norm": 1e9})


@pytest.fixture
def start(config: LearnerConfig, tiny_model: Path, launch: Launch) -> Start:
    """Starts a learner with a reference."""

    def start(ranks: int, *, offload: bool = False) -> list[Any]:
        handles = launch(config, tiny_model, ranks)
        ray.get([handle.keep_reference.remote(offload) for handle in handles])
        return handles

    return start


def penalty(**changes: Any) -> Objective:
    settings = {"estimator": "k3", "weight": 0.1, "place": "loss", "refresh_every": 0, "offload": False}
    return Objective(algorithm=OBJECTIVE.algorithm, kl=KL.model_validate(settings | changes))


def agree(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return max(float(np.abs(a - b).max()) for a, b in zip(left, right, strict=True)) < 1e-5


def total(answers: list[dict[str, float]], name: str) -> float:
    return sum(answer[name] for answer in answers)


@pytest.mark.parametrize("offload", [False, True])
def test_a_reference_is_frozen_refreshed_when_due_and_restored(start: Start, tmp_path: Path, offload: bool) -> None:
    samples, every_second = make_samples(3), penalty(refresh_every=2)
    learner = start(2, offload=offload)
    initial = logprobs(learner, samples)
    assert total(step(learner, 0, objective=every_second), "kl") == 0.0  # policy and reference are still equal
    moved = logprobs(learner, samples)
    assert not agree(initial, moved)
    assert agree(reference_logprobs(learner, samples), initial)
    assert agree(logprobs(learner, samples), moved)  # the forward pass restored the policy
    save(learner, tmp_path / "saved")

    measured = step(learner, 1, objective=every_second)
    assert total(measured, "kl") > 0
    assert agree(reference_logprobs(learner, samples), logprobs(learner, samples))  # the reference is version 2

    resumed = start(1)
    load(resumed, tmp_path / "saved")
    assert agree(reference_logprobs(resumed, samples), initial)
    assert total(step(resumed, 1, objective=every_second), "kl") == pytest.approx(total(measured, "kl"), rel=1e-3)


def test_a_kl_in_the_loss_is_equal_on_one_rank_and_on_two(start: Start) -> None:
    one, two = start(1), start(2)
    strong, halves = penalty(weight=5.0), [make_samples(4, seed=1), make_samples(4, seed=2)]
    for version in range(2):
        alone = step(one, version, *halves, objective=strong)
        shared = step(two, version, *halves, objective=strong)
        assert shared[0]["grad_norm"] == pytest.approx(alone[0]["grad_norm"], rel=1e-3)
        assert [total(shared, name) for name in ("loss", "kl")] == pytest.approx(
            [total(alone, name) for name in ("loss", "kl")], rel=1e-3
        )
    without = step(one, 2, *halves)
    assert "kl" not in without[0]


def test_a_kl_in_the_reward_costs_the_sum_over_a_completions_tokens(start: Start) -> None:
    two = start(2)
    groups = [as_record(make_samples(3, seed=1), "a"), as_record(make_samples(2, seed=2), "b")]
    learner = LearnerGroup(
        two,
        penalty(estimator="k1", weight=0.01, place="reward"),
        micro_batch_tokens=128,
        packing="shared",
        sequence_parallel=1,
        timeout_s=60.0,
        max_skipped=3,
    )
    planned = [sample for samples in to_probes(groups).values() for sample in samples]
    probes = [to_train_sample(sample, ray.get(sample.body)) for sample in planned]
    expected = [
        1.0 - 0.01 * float((probe.rollout_logprobs - ref_logprobs).sum())
        for probe, ref_logprobs in zip(probes, reference_logprobs(two, probes), strict=True)
    ]
    penalized = learner.apply_kl_penalty(groups)
    assert [reward for group in penalized for reward in group.rewards] == pytest.approx(expected, abs=1e-4)
    tokens = [values for group in penalized for values in group.token_penalties or []]
    for probe, ref_logprobs, values in zip(probes, reference_logprobs(two, probes), tokens, strict=True):
        assert values == pytest.approx(0.01 * (probe.rollout_logprobs - ref_logprobs)[12:], abs=1e-5)
    assert max(abs(reward - 1.0) for reward in expected) > 0.01
    report = learner.step(make_samples(2))
    assert report.metrics["reward/kl_penalty"] == pytest.approx(1.0 - np.mean(expected), abs=1e-4)


def as_record(samples: list[TrainSample], name: str) -> GroupRecord:
    """A group of completions with reward 1 and the first sample's prompt, in the object store."""
    completions = [
        Completion(
            token_ids=sample.token_ids[12:].tolist(),
            logprobs=sample.rollout_logprobs[12:].tolist(),
            versions=[VersionSpan(version=0, start=0, end=len(sample.token_ids) - 12)],
            text="",
            finish_reason="stop",
        )
        for sample in samples
    ]
    prompt = Prompt(id=name, messages=[], token_ids=samples[0].token_ids[:12].tolist(), reference="", task="math")
    group = RolloutGroup.single_turn(prompt, completions)
    scored = ScoredGroup(group=group, rewards=[1.0] * len(samples), verdicts={})
    return to_record(scored, ray.put(scored), "")
