"""Feeds on a virtual clock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.async_parts.clock import VirtualBackground
from rlframe.experience.flow import RolloutFeed
from tests.tiny.episodes import TinyEngine, TinyJudge
from tests.tiny.feed import Start, make_feed


@pytest.fixture
def start() -> Iterator[Start]:
    """Feeds of an engine or of several, closed after the test. A test has 60 s of virtual time without progress."""
    opened: list[RolloutFeed] = []

    def make(engines: TinyEngine | list[TinyEngine], judge: TinyJudge | None = None, **changes: object) -> RolloutFeed:
        engines = engines if isinstance(engines, list) else [engines]
        opened.append(make_feed(VirtualBackground("feed", stall_timeout_s=60), engines, judge, **changes))
        return opened[-1].__enter__()

    yield make
    for feed in opened:
        feed.__exit__()
        feed.background.run(feed.episodes.close())
        feed.background.close()
