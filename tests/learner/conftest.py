"""What tests of real learner ranks share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import ray


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A cluster of a module's own, with room for a learner beside another."""
    ray.init("local", num_cpus=8, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def started() -> Iterator[list[Any]]:
    """Ranks that a test has started; they end with it."""
    handles: list[Any] = []
    yield handles
    for handle in handles:
        ray.kill(handle)
