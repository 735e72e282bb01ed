"""Thousands of random runs of the ledger on simulated time: ages, losses, deadlocks."""

from __future__ import annotations

import random

import pytest

from rlframe.types import Late
from tests.tiny.distribution import CAP, MEDIAN, SIGMA, kolmogorov_smirnov
from tests.tiny.schedule import Plan, Run, Taken, lognormal


def random_plan(rng: random.Random, late: Late) -> Plan:
    """A run of any shape. An engine may be a hundred times slower than others in loading a version."""
    slow_loads = rng.choice([0.0, 0.1, 10.0])
    dynamic_sampling = rng.random() < 0.3
    return Plan(
        late=late,
        max_staleness=rng.randint(0 if late == "wait" else 1, 4),
        prompts_per_step=rng.randint(1, 4),
        group_size=rng.randint(1, 4),
        engines=rng.randint(1, 3),
        slots=rng.randint(1, 8),
        ahead=rng.choice([0.0, 0.1, 1.0]),
        completion_s=lognormal(rng, median=1.0, sigma=rng.choice([0.0, 1.0, 2.0]), cap=100.0),
        scoring_s=lambda: rng.choice([0.0, 0.1, 5.0]),
        load_s=lambda engine: slow_loads * (rng.random() if engine else 1.0),
        step_s=lambda: rng.choice([0.1, 1.0, 10.0]),
        equal_rewards=(lambda: rng.random() < 0.3) if dynamic_sampling else None,
    )


@pytest.mark.parametrize("late, block", [("wait", n) for n in range(10)] + [("mask", n) for n in range(10)])
def test_random_runs_lose_and_repeat_nothing_and_go_on(late: Late, block: int) -> None:
    for seed in range(100 * block, 100 * (block + 1)):
        run = Run(random_plan(random.Random(seed), late))
        steps = run.go(20)  # raises if nothing happens any more
        trained = [group.attempt.prompt.id for step in steps for group in step.groups]
        prompts = [*trained, *run.dropped, *run.groups]
        assert len(prompts) == len(set(prompts)) == run.ledger.admitted
        assert set(prompts) == {f"o{position}" for position in range(run.ledger.admitted)}
        if late == "wait":
            assert max(oldest_age(step) for step in steps) <= run.plan.max_staleness


def oldest_age(step: Taken) -> int:
    return step.version - min(group.oldest_version for group in step.groups)


@pytest.mark.parametrize("seed", range(20))
def test_a_run_that_waits_for_its_tail_goes_on_for_200_steps(seed: int) -> None:
    plan = random_plan(random.Random(1000 + seed), "wait")
    assert len(Run(plan).go(200)) == 200


def long_tailed(late: Late, seed: int) -> Plan:
    """The lengths of the trace: seconds stand for tokens, and a step lasts as long as its completions take."""
    rng = random.Random(seed)
    prompts_per_step, group_size, engines, slots, mean = 8, 8, 4, 32, 1631.0
    return Plan(
        late=late,
        max_staleness=8,
        prompts_per_step=prompts_per_step,
        group_size=group_size,
        engines=engines,
        slots=slots,
        completion_s=lognormal(rng, median=MEDIAN, sigma=SIGMA, cap=CAP),
        step_s=lambda: prompts_per_step * group_size * mean / (engines * slots),
    )


def test_a_run_that_discarded_late_groups_would_favour_short_answers() -> None:
    """So the comparison sees such a bias."""
    steps = Run(long_tailed("keep", seed=0)).go(300)
    punctual = [(step, group) for step in steps[100:260] for group in step.groups if oldest_age(step) <= 8]
    lengths = [length for _, group in punctual for length in group.seconds]
    assert kolmogorov_smirnov(lengths) < 0.001
