"""Fixtures for tests of real learner ranks: a cluster, and processes for the ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from tests.tiny.ranks import RankProcesses
from tests.tiny.ray_local import start_ray

Launch = Callable[..., list[Any]]


@pytest.fixture(scope="package")
def processes() -> Iterator[RankProcesses]:
    start_ray(8)
    yield RankProcesses()
    ray.shutdown()


@pytest.fixture
def launch(processes: RankProcesses) -> Iterator[Launch]:
    """`RankProcesses.launch`; a test's learners end with the test."""
    learners: list[list[Any]] = []

    def launch(*arguments: Any, **named: Any) -> list[Any]:
        learners.append(processes.launch(*arguments, **named))
        return learners[-1]

    yield launch
    for handles in learners:
        processes.end(handles)
