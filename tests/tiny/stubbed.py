"""Whole runs with a stand-in for the class of the learner's ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rlframe.cluster import start as cluster
from rlframe.cluster.ranks import Ranks
from rlframe.config.run import RunConfig


@contextmanager
def start_with_ranks(rank_class: type, run: RunConfig, **variables: str) -> Iterator[cluster.Actors]:
    """The run's actors, whose ranks are of `rank_class`. All processes have these variables, and find the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ranks, "kind", rank_class)
        for name, value in variables.items():
            patch.setenv(name, value)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")]))
        with cluster.start(run, Path(run.model.path)) as actors:
            yield actors
