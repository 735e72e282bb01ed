"""A Ray cluster of this machine, started once for each module of tests."""

from collections.abc import Iterator

import pytest
import ray

from tests.tiny.ray_local import start_ray


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    start_ray(4)
    yield
    ray.shutdown()
