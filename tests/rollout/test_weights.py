"""New weights of one rank and of a model with untied embeddings; `tests/weights` has several ranks and tied ones."""

from __future__ import annotations

from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from tests.weights.test_sync import deltas, disagreement, nudge, step, sync


def test_all_weights_arrive_after_steps(actors: cluster.Actors, run: RunConfig) -> None:
    sync(actors)
    assert disagreement(actors, run) < 2e-3
    for _ in range(3):
        step(actors, run)
    assert disagreement(actors, run) > 0.1
    sync(actors)
    assert len(actors.weights.current.names) == 21
    assert disagreement(actors, run) < 2e-3


def test_deltas_arrive(actors: cluster.Actors, run: RunConfig) -> None:
    sync(actors)
    nudge(actors)
    assert disagreement(actors, run) > 0.1
    sync(actors)
    assert deltas(actors)
    assert disagreement(actors, run) < 2e-3
