"""A sandbox at each level of isolation, with the `LIMITS` of the test module."""

from collections.abc import Iterator

import pytest

from rlframe.sandbox import Sandbox
from rlframe.sandbox import sandbox as module
from rlframe.sandbox.levels import ISOLATIONS


@pytest.fixture(scope="module", params=ISOLATIONS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox at exactly the requested level; `make setup` on x86-64 Linux provides both levels."""
    sandbox = Sandbox(request.module.LIMITS, "landlock")
    sandbox._server, sandbox.level = module._start_tested_server(request.param), request.param
    yield sandbox
    sandbox.close()
