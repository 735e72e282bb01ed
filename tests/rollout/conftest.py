"""One run for all tests of this room, because an engine takes 20 seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from rlframe.types import Prompt, Sampling
from tests.conftest import compose, tiny_overrides

SAMPLING = Sampling(completions=4, max_tokens=16, temperature=1.0, seed=1)


@pytest.fixture(scope="package")
def run(untied_model: Path) -> RunConfig:
    """One engine and one rank. With rollout.cpus=0 the local cluster has room for a second engine."""
    engine = ["rollout.engines=1", "rollout.cpus=0", "rollout.max_tokens=380"]
    settings = ["learner.ranks=1", "learner.lr=0.02", "weights.chunk_mib=1", "weights.full_every=1000"]
    return compose([*tiny_overrides(untied_model), *engine, *settings])


@pytest.fixture(scope="package")
def actors(run: RunConfig) -> Iterator[cluster.Actors]:
    with cluster.start(run, Path(run.model.path)) as actors:
        yield actors


def prompt(name: str, text: str) -> Prompt:
    return Prompt(id=name, messages=[], token_ids=list(text.encode()), reference="", task="math")


def engine(actors: cluster.Actors) -> Any:
    """The handle of an engine that serves."""
    return actors.rollouts.replicas.serving()[0].handle
