"""What the tests of the cluster share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray

from tests.tiny.ray_local import start_ray


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    start_ray(2)
    yield
    ray.shutdown()
