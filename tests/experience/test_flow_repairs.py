"""Takes while an engine holds wrong weights, on a virtual clock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from benchmarks.async_parts.clock import VirtualBackground
from rlframe.actors.background import Background
from rlframe.experience.errands import Errands
from tests.tiny.episodes import PAIR, TinyEngine
from tests.tiny.feed import hold, make_feed, make_stream, names, publish, release


@pytest.fixture
def background() -> Iterator[Background]:
    background = VirtualBackground("feed", stall_timeout_s=60)
    yield background
    background.close()


def test_a_frozen_engine_with_wrong_weights_blocks_no_admission(background: Background) -> None:
    """A sync repairs such an engine, and the next sync follows the next take: a take must not wait for the engine."""
    engines = [TinyEngine("rollout-0"), TinyEngine("rollout-1")]
    feed = make_feed(background, engines, max_staleness=1, slots=6)
    hold(engines[1], *[f"o{n}" for n in range(20)])
    publish(feed, engines[:1], 2)
    feed.rollouts.replicas.quarantine(feed.rollouts.replicas["rollout-1"])  # has loaded version 0 last
    with feed:
        assert len(feed.take(2)) == 2
    background.run(feed.episodes.close())


class WrongWeights:
    """An engine that samples prompt o0 has wrong weights from `spoil_later` on until the repair."""

    def __init__(self, engine: TinyEngine) -> None:
        self.engine = engine
        self.waiting = False
        self.repaired_by: list[threading.Thread] = []

    def spoil_later(self, background: Background) -> None:
        """Spoils the weights in ten seconds."""

        def spoil() -> None:
            self.waiting = True
            background.notify()

        async def begin() -> None:
            background._loop.call_later(10, spoil)

        background.run(begin())

    def run(self) -> None:
        self.repaired_by.append(threading.current_thread())
        self.waiting = False
        release(self.engine, "o0")


def test_a_take_has_the_engine_repaired_that_a_due_prompt_waits_for(background: Background) -> None:
    engine = TinyEngine()
    wrong = WrongWeights(engine)
    feed = make_feed(background, [engine], max_staleness=1, slots=20, errands=wrong)
    hold(engine, "o0")
    with feed:
        assert names(feed.take(2)) == ["o1", "o2"]
        publish(feed, [engine], 1)
        wrong.spoil_later(background)
        assert names(feed.take(2)) == ["o0", "o3"]
    background.run(feed.episodes.close())
    assert wrong.repaired_by == [threading.current_thread()]  # where ranks publish, between two steps


def test_an_evaluation_has_the_engine_repaired_that_it_waits_for(background: Background) -> None:
    engine = TinyEngine()
    wrong = WrongWeights(engine)
    feed = make_feed(background, [engine], max_staleness=1, slots=20, errands=wrong)
    hold(engine, "o0")
    with feed:
        wrong.spoil_later(background)
        groups = feed.score([make_stream().at(0)], PAIR)
    background.run(feed.episodes.close())
    assert [group.group.prompt.id for group in groups] == ["o0@0"]
    assert wrong.repaired_by == [threading.current_thread()]


def test_a_checkpoint_that_is_due_does_not_wait_for_the_step_s_groups(background: Background) -> None:
    engine, due, saved_by = TinyEngine(), threading.Event(), []

    def save() -> None:
        saved_by.append(threading.current_thread())
        due.clear()
        release(engine, "o0")

    errands = Errands(WeightsInOrder(), due, save)  # pyright: ignore[reportArgumentType]
    feed = make_feed(background, [engine], max_staleness=1, slots=20, errands=errands)
    hold(engine, "o0")

    async def drain_later() -> None:
        background._loop.call_later(10, lambda: (due.set(), background.notify()))

    with feed:
        assert names(feed.take(2)) == ["o1", "o2"]
        publish(feed, [engine], 1)
        background.run(drain_later())
        assert names(feed.take(2)) == ["o0", "o3"]
    background.run(feed.episodes.close())
    assert saved_by == [threading.current_thread()]


class WeightsInOrder:
    needs_repair = False

    def repair(self) -> None: ...


def test_an_engine_s_first_refused_completion_is_warned_about(background: Background) -> None:
    engine, lines, strangers = TinyEngine(), [], [7, 8]
    engine.change = lambda sampled: [*(replace(sampled, index=strangers.pop(0)) for _ in strangers[:1]), sampled]
    feed = make_feed(background, [engine], slots=20, warn=lines.append)
    with feed:
        assert names(feed.take(2)) == ["o0", "o1"]
        assert feed.metrics()["rollout/refused"] == 2
    background.run(feed.episodes.close())
    assert lines == [
        "rollout-0: a completion was refused, as rollout/refused counts from now on: completion 7 of prompt 'o0@0': "
        "nobody waits for completion 7: it was not asked for, or came before"
    ]
