"""The actors of a module's run, because an engine takes 20 seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig


@pytest.fixture(scope="module")
def actors(run: RunConfig) -> Iterator[cluster.Actors]:
    with cluster.start(run, Path(run.model.path)) as actors:
        yield actors
