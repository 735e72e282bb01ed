"""What tests of real learner ranks share: one cluster, and the processes of their ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from tests.tiny.seats import Seats

Launch = Callable[..., list[Any]]


@pytest.fixture(scope="package")
def seats() -> Iterator[Seats]:
    ray.init("local", num_cpus=8, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    yield Seats()
    ray.shutdown()


@pytest.fixture
def launch(seats: Seats) -> Iterator[Launch]:
    """`Seats.launch`; the learners that a test has launched end with it."""
    launched: list[list[Any]] = []

    def launch(*arguments: Any, **named: Any) -> list[Any]:
        launched.append(seats.launch(*arguments, **named))
        return launched[-1]

    yield launch
    for handles in launched:
        seats.end(handles)
