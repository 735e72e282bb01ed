"""An engine that quantises the weights: at each update it does so anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlframe.algorithm import rate
from rlframe.batch.samples import to_samples
from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from tests.conftest import compose, tiny_overrides
from tests.weights.test_sync import disagreement, sample_groups, sync

INT8 = "rollout.engine_args={quantization: int8_per_channel_weight_only}"
ROUNDING = 0.3  # nats of a token's log-probability, at most


@pytest.fixture(scope="module")
def run(untied_model: Path) -> RunConfig:
    settings = [INT8, "rollout.dtype=bfloat16", "learner.ranks=1", "learner.lr=0.02"]
    return compose([*tiny_overrides(untied_model), *settings])


@pytest.fixture(scope="module")
def actors(run: RunConfig) -> Iterator[cluster.Actors]:
    with cluster.start(run, Path(run.model.path)) as actors:
        yield actors


def test_quantised_weights_follow_the_learner(actors: cluster.Actors, run: RunConfig) -> None:
    assert disagreement(actors, run) < ROUNDING
    for _ in range(3):
        actors.learner.step(to_samples(rate(sample_groups(actors), run.algorithm), run.algorithm))
    assert disagreement(actors, run) > 2  # the engine's stale weights show
    assert not sync(actors).repaired
    assert disagreement(actors, run) < ROUNDING
