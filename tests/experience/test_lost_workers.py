"""An evaluation goes on when its episode worker is lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from benchmarks.async_parts.clock import VirtualBackground
from rlframe.experience.scoring import Scorer
from tests.tiny.logged_worker import order
from tests.tiny.losable import LosablePool


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
