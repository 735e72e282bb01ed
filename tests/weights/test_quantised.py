"""An engine that quantises the weights: at each update it does so anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from tests.conftest import compose, tiny_overrides
from tests.weights.test_sync import disagreement, step, sync

INT8 = "rollout.engine_args={quantization: int8_per_channel_weight_only}"
ROUNDING = 0.3  # nats of a token's log-probability, at most


@pytest.fixture(scope="module")
def run(untied_model: Path) -> RunConfig:
    settings = [INT8, "rollout.dtype=bfloat16", "learner.ranks=1", "learner.lr=0.02"]
    return compose([*tiny_overrides(untied_model), *settings])


@pytest.mark.long
def test_quantised_weights_follow_the_learner(actors: cluster.Actors, run: RunConfig) -> None:
    assert disagreement(actors, run) < ROUNDING
    for _ in range(3):
        step(actors, run)
    assert disagreement(actors, run) > 2  # the engine's stale weights show
    assert not sync(actors).repaired
    assert disagreement(actors, run) < ROUNDING
