"""Starting some of a run's roles."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from rlframe.errors import RunFailed


def test_a_run_starts_only_the_roles_that_it_asks_for(tiny_run: RunConfig, tiny_model: Path) -> None:
    with cluster.start(tiny_run, tiny_model, ["reward"]) as actors:
        assert list(actors.starter.handles) == ["reward-0"]
        assert ray.cluster_resources()["CPU"] == 1  # reward.workers x reward.cpus
        assert actors.rewards is not None and actors.rewards.in_flight == [0]
        assert (actors.rollouts, actors.learner, actors.weights) == (None, None, None)
        with pytest.raises(RunFailed, match="this run has no engines"):
            actors.add_engine()
    assert not ray.is_initialized()
