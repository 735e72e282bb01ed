"""Engines of several worker processes, and with quantised weights: they take weights and agree with the learner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rlframe.algorithm import rate
from rlframe.batch.samples import to_samples
from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from tests.conftest import compose, tiny_overrides
from tests.weights.test_sync import disagreement, sample_groups, sync

# Tensor parallelism on both stages of a pipeline: four workers, of which none has all weights.
PARTS = "parts", ["rollout.tensor_parallel=2", "rollout.pipeline_parallel=2"], 4, 2e-3
INT8 = ["rollout.engine_args={quantization: int8_per_channel_weight_only}", "rollout.dtype=bfloat16"]
QUANTISED = "quantised", INT8, 0, 0.3  # workers apart from the scheduler's process; largest difference in nats


@pytest.fixture(scope="module", params=[PARTS, QUANTISED], ids=lambda param: param[0])
def case(request: pytest.FixtureRequest, untied_model: Path) -> tuple[RunConfig, int, float]:
    _, settings, workers, bound = request.param
    run = compose([*tiny_overrides(untied_model), *settings, "learner.ranks=1", "learner.lr=0.02"])
    return run, workers, bound


@pytest.fixture(scope="module")
def actors(case: tuple[RunConfig, int, float]) -> Iterator[cluster.Actors]:
    run, *_ = case
    with cluster.start(run, Path(run.model.path)) as actors:
        yield actors


def test_an_engine_takes_the_learner_s_weights(actors: cluster.Actors, case: tuple[RunConfig, int, float]) -> None:
    run, workers, bound = case
    names = [process.name() for process in psutil.Process().children(recursive=True)]
    assert sum(name.startswith("VLLM::Worker") for name in names) == workers
    assert disagreement(actors, run) < bound
    for _ in range(3):
        actors.learner.step(to_samples(rate(sample_groups(actors), run.algorithm), run.algorithm))
    assert disagreement(actors, run) > 2
    assert not sync(actors).repaired
    assert disagreement(actors, run) < bound
