"""A step without a finite loss and gradient changes nothing on real ZeRO-3 ranks, and names who spoiled it."""

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
from rlframe.types import TrainSample
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny.learner import OBJECTIVE, differing, make_samples, state, step
from tests.tiny.seats import Seats


@pytest.fixture(scope="module")
def config(tiny_model: Path) -> LearnerConfig:
    """bfloat16 with float32 master weights, and a rate that warms up: it would show a step that counts."""
    return compose([*tiny_overrides(tiny_model), "learner.dtype=bfloat16", "learner.warmup_steps=8"]).learner


@pytest.fixture(scope="module")
def two(config: LearnerConfig, tiny_model: Path, seats: Seats) -> list[Any]:
    return seats.launch(config, tiny_model, 2)


def spoiled(prompt_id: str = "p4", **values: float) -> list[TrainSample]:
    """Samples of which one has, at token 15, what an engine or a reward should never give."""

    def spoil(sample: TrainSample) -> TrainSample:
        changed = {name: getattr(sample, name).copy() for name in values}
        for name, value in values.items():
            changed[name][15] = value
        return replace(sample, **changed)

    return [spoil(sample) if sample.prompt_id == prompt_id else sample for sample in make_samples()]


def test_a_spoiled_step_leaves_every_bit_and_the_rate_and_the_next_ones_are_as_if_it_had_not_been(
    two: list[Any], config: LearnerConfig, tiny_model: Path, launch: Launch
) -> None:
    step(two, 0)
    before = state(two)
    answers = step(two, 1, spoiled(rollout_logprobs=-math.inf))
    assert [(a["skipped"], a["skipped_in_a_row"], math.isinf(a["grad_norm"])) for a in answers] == [(1, 1, True)] * 2
    assert differing(before, state(two)) == []
    assert {name.split()[0] for name in before} == {"model", "master", "exp_avg", "exp_avg_sq", "step"}
    answers = step(two, 2)
    assert [(a["skipped"], a["skipped_in_a_row"]) for a in answers] == [(0, 0)] * 2

    unspoiled = launch(config, tiny_model, 2)
    step(unspoiled, 0)
    rates = [a["lr"] for a in step(unspoiled, 1)]
    assert rates == [a["lr"] for a in answers] == [1e-3 * 2 / 8] * 2
    assert differing(state(unspoiled), state(two)) == []


@pytest.mark.parametrize(
    "values, told",
    [
        ({"rollout_logprobs": -math.inf}, "its rollout log-probability is -inf at token 15 of"),
        ({"advantages": math.nan}, "its loss is nan at token 15 of"),
        ({"loss_weights": math.inf}, "its loss is "),
    ],
)
def test_the_rank_that_has_the_spoiled_sample_names_it_and_the_others_name_nobody(
    two: list[Any], values: dict[str, float], told: str
) -> None:
    answers = step(two, 3, spoiled(**values))
    assert [a["skipped"] for a in answers] == [1, 1]
    lines = ray.get([handle.not_finite.remote() for handle in two])
    [line] = [line for of_rank in lines for line in of_rank]
    assert line.startswith(f"prompt p4: {told}")
    step(two, 3)
    assert ray.get([handle.not_finite.remote() for handle in two]) == [[], []]


def test_a_run_ends_at_the_second_spoiled_step_in_a_row_with_the_sample_named(two: list[Any]) -> None:
    step(two, 0)
    learner = LearnerGroup(
        two,
        OBJECTIVE,
        micro_batch_tokens=128,
        share_prompts=True,
        sequence_parallel=1,
        gpu_links=False,
        timeout_s=60,
        max_skipped=2,
    )
    report = learner.step(spoiled(advantages=math.nan))
    assert (report.policy_version, report.metrics["learner/skipped"]) == (1, 1)
    assert learner.step(make_samples()).metrics["learner/skipped"] == 0
    learner.step(spoiled(advantages=math.nan))
    with pytest.raises(RunFailed, match=r"2 steps in a row .* step 4:\n  prompt p1: its loss is nan at token 15 of"):
        learner.step(spoiled("p1", advantages=math.nan))


def test_where_only_the_gradient_is_not_finite_the_step_is_skipped_all_the_same(two: list[Any]) -> None:
    huge = [replace(s, loss_weights=(s.loss_weights * 3e38).astype(np.float32)) for s in make_samples()]
    before = state(two)
    assert [a["skipped"] for a in step(two, 5, huge)] == [1, 1]
    assert differing(before, state(two)) == []


def test_of_three_minibatches_a_spoiled_one_is_left_out_alone(
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
