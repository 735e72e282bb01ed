"""A step without a finite loss and gradient changes nothing on real ZeRO-3 ranks, and names the spoiled samples."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlframe.errors import RunFailed
from rlframe.learner.config import LearnerConfig
from rlframe.learner.group import LearnerGroup
from rlframe.training import TrainSample
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny.learner import OBJECTIVE, differing, make_samples, state, step
from tests.tiny.ranks import RankProcesses


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> LearnerConfig:
    """bfloat16 with float32 master weights; the warm-up shows when a step counts in the schedule."""
    return compose([*tiny_overrides(tiny_model), "learner.dtype=bfloat16", "learner.warmup_steps=8"]).learner


@pytest.fixture(scope="module")
def two(config: LearnerConfig, tiny_model: Path, processes: RankProcesses) -> list[Any]:
    return processes.launch(config, tiny_model, 2)


def spoiled(prompt_id: str = "p4", **values: float) -> list[TrainSample]:
    """Samples of which one has `values` at token 15, such as no engine and no reward should return."""

    def spoil(sample: TrainSample) -> TrainSample:
        changed = {name: getattr(sample, name).copy() for name in values}
        for name, value in values.items():
            changed[name][15] = value
        return replace(sample, **changed)

    return [spoil(sample) if sample.prompt_id == prompt_id else sample for sample in make_samples()]


def test_a_spoiled_step_changes_no_bit_and_no_later_rate(
    two: list[Any], config: LearnerConfig, tiny_model: Path, launch: Launch
) -> None:
    step(two, 0)
    stepped = state(two)
    answers = step(two, 1, spoiled(rollout_logprobs=-math.inf))
    assert [(a["skipped"], a["skipped_in_a_row"], math.isinf(a["grad_norm"])) for a in answers] == [(1, 1, True)] * 2
    assert differing(stepped, state(two)) == []
    assert {name.split()[0] for name in stepped} == {"model", "master", "exp_avg", "exp_avg_sq", "step"}
    answers = step(two, 2)
    assert [(a["skipped"], a["skipped_in_a_row"]) for a in answers] == [(0, 0)] * 2

    unspoiled = launch(config, tiny_model, 2)
    step(unspoiled, 0)
    rates = [a["lr"] for a in step(unspoiled, 1)]
    assert rates == [a["lr"] for a in answers] == [1e-3 * 2 / 8] * 2
    assert differing(state(unspoiled), state(two)) == []


@pytest.mark.parametrize(
    "values, reason",
    [
        ({"rollout_logprobs": -math.inf}, "its rollout log-probability is -inf at token 15 of"),
        ({"advantages": math.nan}, "its loss is nan at token 15 of"),
        ({"loss_weights": math.inf}, "its loss is "),
    ],
)
def test_only_the_rank_with_the_spoiled_sample_names_it(two: list[Any], values: dict[str, float], reason: str) -> None:
    answers = step(two, 3, spoiled(**values))
    assert [a["skipped"] for a in answers] == [1, 1]
    answers = ray.get([handle.not_finite.remote() for handle in two])
    [line] = [line for lines in answers for line in lines]
    assert line.startswith(f"prompt p4: {reason}")
    step(two, 3)
    assert ray.get([handle.not_finite.remote() for handle in two]) == [[], []]


def test_the_second_spoiled_step_in_a_row_ends_the_run(two: list[Any]) -> None:
    step(two, 0)
    learner = LearnerGroup(
        two,
        OBJECTIVE,
        micro_batch_tokens=128,
        packing="shared",
        sequence_parallel=1,
        timeout_s=60,
        max_skipped=2,
    )
    report = learner.step(spoiled(rollout_logprobs=-math.inf))
    assert math.isfinite(report.metrics["mismatch/k3"])  # of all tokens but that one
    assert (report.policy_version, report.metrics["learner/skipped"]) == (1, 1)
    assert learner.step(make_samples()).metrics["learner/skipped"] == 0
    learner.step(spoiled(advantages=math.nan))
    with pytest.raises(RunFailed, match=r"2 steps in a row .* step 4:\n  prompt p1: its loss is nan at token 15 of"):
        learner.step(spoiled("p1", advantages=math.nan))


def test_an_infinite_gradient_of_finite_losses_skips_the_step_too(two: list[Any]) -> None:
    huge = [replace(s, loss_weights=(s.loss_weights * 3e38).astype(np.float32)) for s in make_samples()]
    initial = state(two)
    assert [a["skipped"] for a in step(two, 5, huge)] == [1, 1]
    assert differing(initial, state(two)) == []


def test_a_spoiled_minibatch_does_not_skip_the_other_two(
    config: LearnerConfig, tiny_model: Path, launch: Launch
) -> None:
    one, unspoiled = launch(config, tiny_model, 1), launch(config, tiny_model, 1)
    samples, with_nan = make_samples(), spoiled("p2", advantages=math.nan)
    [answer] = step(one, 0, samples[:2], with_nan[2:4], samples[4:])
    assert (answer["updates"], answer["skipped"], answer["skipped_in_a_row"]) == (3, 1, 0)
    [lines] = ray.get([handle.not_finite.remote() for handle in one])
    assert [line.startswith("prompt p2: its loss is nan") for line in lines] == [True]
    step(unspoiled, 0, samples[:2], samples[4:])
    assert differing(state(unspoiled), state(one)) == []
    assert [a["lr"] for a in step(one, 1)] == [a["lr"] for a in step(unspoiled, 1)] == [1e-3 * 2 / 8]
