"""Evaluations and takes after the loss of an episode worker, and with a disk that does not answer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.async_parts.clock import VirtualBackground
from rlframe.actors.in_process import InProcess
from rlframe.errors import Stalled
from rlframe.experience.scoring import Scorer
from rlframe.rollout.episodes import EpisodeWorker
from tests.tiny.episodes import BOUNDS, TinyEngine, TinyJudge
from tests.tiny.feed import make_feed
from tests.tiny.logged_worker import order
from tests.tiny.losable import LosablePool


def test_rollouts_that_a_dead_disk_does_not_take_end_the_run(tmp_path: Path):
    background = VirtualBackground("hung", stall_timeout_s=60)
    pool = LosablePool(tmp_path)

    async def write(*_: object) -> None:
        await asyncio.get_running_loop().create_future()

    pool.write = write  # pyright: ignore[reportAttributeAccessIssue]
    try:
        with (
            Scorer(pool, background, slots=16, warn=print) as scorer,
            pytest.raises(Stalled, match=r"did not write a step's rollouts in run_dir within 60 s .*: does the disk"),
        ):
            scorer.write(1, tmp_path, [], [])
        background.run(pool.close())
    finally:
        background.close()


def test_finished_and_unfinished_groups_of_an_evaluation_come_from_the_successor(tmp_path: Path):
    background = VirtualBackground("lost", stall_timeout_s=60)
    short, long = order("short", 50, 60), order("long", 400, 500)  # end after 0.6 and 5 s

    async def make() -> LosablePool:
        pool = LosablePool(tmp_path)
        await pool.open_segments(tmp_path / "000001")
        return pool

    async def kill() -> None:
        await asyncio.sleep(3)
        assert [pool.workers["episodes-0"].open.keys()] == [{long.key.replace("#1", "#score1")}]
        await pool.kill("episodes-0")

    pool = background.run(make())
    try:
        with Scorer(pool, background, slots=16, warn=print) as scorer:
            background._loop.call_soon_threadsafe(lambda: background.start(kill()))
            groups = scorer.score([short.prompt, long.prompt], short.sampling)
        background.run(pool.close())
    finally:
        background.close()
    assert [[len(c.token_ids) for c in group.group.completions] for group in groups] == [[50, 60], [400, 500]]
    assert sorted(pool.judge.judged) == [50, 60, 400, 500]
    assert list(pool.made) == ["episodes-0", "episodes-1"]


def test_without_a_log_no_groups_of_a_lost_worker_are_taken():
    """Their tokens were in the worker's memory: ranks that fetched them would count as lost."""
    background = VirtualBackground("lost", stall_timeout_s=60)
    feed = make_feed(background, [TinyEngine(seconds=1.0)], max_staleness=1)
    successor = EpisodeWorker("episodes-1", [], TinyJudge().pool, ahead=0.0, put=lambda body: body, bounds=BOUNDS)
    feed.episodes.start_worker = lambda lost: ("episodes-1", InProcess(successor))

    async def lose() -> None:
        await asyncio.sleep(8)
        assert feed.ledger.ready == 2
        feed.episodes.workers["episodes-0"].lose("it was killed")

    try:
        with feed:
            feed.take(2)
            background.run(lose())
            feed.rollouts.version = 1
            assert {group.worker for group in feed.take(2)} == {"episodes-1"}
        background.run(feed.episodes.close())
    finally:
        background.close()
