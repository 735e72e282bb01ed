"""Whole runs of the feed on a virtual clock: engines load late, verdicts take long, completions have a long tail."""

from __future__ import annotations

import random

import pytest

from benchmarks.async_parts.trace import Trace
from rlframe.algorithm import GRPO, rate
from rlframe.batch.samples import to_samples
from rlframe.batch.sequences import to_train_sample
from rlframe.training import GroupRecord
from rlframe.types import Late
from tests.tiny.distribution import kolmogorov_smirnov
from tests.tiny.timed import Shape, timed_run

ALGORITHM = GRPO(name="grpo", clip=0.2)


def random_shape(rng: random.Random, late: Late) -> Shape:
    """A run of any shape. Loads of the first engine take up to ten of its steps."""
    slow_loads, sigma, group_size = rng.choice([0.0, 1.0, 10.0]), rng.choice([0.0, 1.0, 2.0]), rng.randint(1, 4)
    return Shape(
        late=late,
        max_staleness=rng.randint(1, 4),
        prompts_per_step=rng.randint(1, 4),
        group_size=group_size,
        engines=rng.randint(1, 3),
        slots=rng.randint(1, 8),
        ahead=rng.choice([0.0, 0.1, 1.0]),
        workers=rng.randint(1, 2),
        token_s=0.1,
        lengths=lambda _: [1 + int(10 * rng.lognormvariate(0, sigma)) for _ in range(group_size)],
        scoring_s=lambda: rng.choice([0.0, 0.1, 5.0]),
        load_s=lambda engine: slow_loads * (rng.random() if engine else 1.0),
        step_s=lambda: rng.choice([0.1, 1.0, 10.0]),
        dynamic_sampling=group_size > 1 and rng.random() < 0.3,
    )


@pytest.mark.parametrize("late", ["wait", "mask", "keep"])
@pytest.mark.parametrize("seed", range(25))
def test_no_prompt_is_lost_or_taken_twice_and_no_old_token_has_weight(late: Late, seed: int) -> None:
    with timed_run(random_shape(random.Random(seed), late), seed) as run:
        taken: list[str] = []
        for _ in range(12):
            version = run.version
            groups = run.step()
            taken += [group.prompt_id for group in groups]
            if late == "wait":
                assert max(ages(groups, version)) <= run.shape.max_staleness
            if late == "mask":
                assert ages_with_weight(groups, version, run.shape.max_staleness) <= run.shape.max_staleness
        ledger = run.feed.ledger
        in_flight = [entry.admitted.prompt_id for entry in ledger.in_flight]
        assert len(taken) == len(set(taken)) and not set(taken) & set(in_flight)
        assert set(taken) | set(in_flight) <= set(run.admitted)
        assert len(run.admitted) == len(set(run.admitted)) == len(taken) + len(in_flight) + ledger.dropped


def ages(groups: list[GroupRecord], version: int) -> list[int]:
    return [version - span.version for group in groups for row in group.trajectories for span in row.versions]


def ages_with_weight(groups: list[GroupRecord], version: int, max_staleness: int) -> int:
    """The greatest age of a token whose loss has a weight, by the samples that the learner trains on."""
    greatest = 0
    for planned in to_samples(rate(groups, ALGORITHM), ALGORITHM, version - max_staleness):
        sample = to_train_sample(planned, planned.body)
        assert sample.versions is not None
        weighed = sample.versions[sample.sampled & (sample.loss_weights != 0)]
        young = sample.sampled & (sample.versions >= version - max_staleness)
        assert len(weighed) == young.sum()  # and all young tokens have
        greatest = max([greatest, *(version - weighed).tolist()])
    return greatest


@pytest.mark.parametrize("late", ["wait", "mask", "keep"])
def test_trained_lengths_are_distributed_like_those_of_the_trace(late: Late) -> None:
    """A window of steps in the middle of a run: before it, all prompts of the start are trained, and after it the run
    goes on, so no long completion is cut off by an end of the trace."""
    trace = Trace(group=8, seed=0)
    mean_step_s = 8 * 8 * 1631 * 0.001 / (4 * 32)  # the learner is as fast as the slots
    shape = Shape(late=late, max_staleness=8, lengths=lambda n: trace[n], step_s=lambda: mean_step_s)
    with timed_run(shape) as run:
        steps = [run.step() for _ in range(260)]
    lengths = [length for groups in steps[100:] for group in groups for length in group.lengths]
    assert len(lengths) == 10_240
    assert kolmogorov_smirnov(lengths) > 0.01
