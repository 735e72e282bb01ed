"""New weights for an engine whose layers are divided over two worker processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from tests.conftest import compose, tiny_overrides
from tests.weights.test_sync import disagreement, nudge, step, sync


@pytest.fixture(scope="module")
def run(tiny_model: Path) -> RunConfig:
    settings = ["rollout.tensor_parallel=2", "learner.lr=0.02", "weights.chunk_mib=1", "weights.full_every=1000"]
    return compose([*tiny_overrides(tiny_model), *settings])


def test_both_workers_take_a_step_s_weights(actors: cluster.Actors, run: RunConfig) -> None:
    assert disagreement(actors, run) < 2e-3
    for _ in range(3):
        step(actors, run)
    assert disagreement(actors, run) > 0.3
    assert sync(actors).repaired == []
    assert disagreement(actors, run) < 2e-3


def test_both_workers_take_deltas(actors: cluster.Actors, run: RunConfig) -> None:
    nudge(actors)
    assert disagreement(actors, run) > 0.1
    assert sync(actors).repaired == []
    assert disagreement(actors, run) < 2e-3


def test_only_the_first_worker_is_a_client_of_the_cluster(actors: cluster.Actors) -> None:
    drivers = [job for job in ray._private.state.jobs() if not job["IsDead"]]
    assert len(drivers) == 2  # this test, and the worker that reads the object store
