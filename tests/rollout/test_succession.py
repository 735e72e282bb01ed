"""A pool replaces lost episode workers, whatever changes while the next one starts. In this process, virtual time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from rlframe.errors import RunFailed
from rlframe.rollout import episode_pool, succession
from rlframe.rollout.messages import Order
from tests.tiny.logged_worker import order, run
from tests.tiny.losable import LosablePool, seat

LENGTHS = (200, 400)  # tokens; they take 2 and 4 s


def orders(*names: str) -> list[Order]:
    return [order(name, *LENGTHS) for name in names]


def lengths(pool: LosablePool) -> dict[str, list[int]]:
    return {key: record.lengths for key, record in pool.records.items()}


def test_orders_that_come_while_a_worker_is_lost_go_to_its_successor(tmp_path: Path):
    async def sample() -> LosablePool:
        async with LosablePool(tmp_path) as pool:
            pool.assign(orders("before"))
            await asyncio.sleep(1.5)
            await pool.kill("episodes-0")
            pool.assign(orders("meanwhile"))
            await pool.until(lambda: len(pool.records) == 2)
            assert pool.completions == 0
            return pool

    pool = run(sample())
    assert lengths(pool) == {"before#1": [200, 400], "meanwhile#1": [200, 400]}
    assert pool.lines == ["episodes-0 is lost, and another episode worker takes its place: it was killed"]
    assert pool.forgotten == ["episodes-0"]


def test_orders_go_to_workers_that_live(tmp_path: Path):
    async def sample() -> dict[str, str]:
        async with LosablePool(tmp_path, workers=2) as pool:
            await pool.kill("episodes-0")
            pool.assign(orders("a", "b"))
            await pool.until(lambda: len(pool.records) == 2)
            return {key: record.worker for key, record in pool.records.items()}

    assert run(sample()) == {"a#1": "episodes-1", "b#1": "episodes-1"}


def test_a_successor_learns_what_changes_while_it_starts(tmp_path: Path):
    async def sample() -> tuple[LosablePool, set[str]]:
        async with LosablePool(tmp_path) as pool:
            changes: list[asyncio.Future[Any]] = []

            async def change() -> None:
                await pool.announce(7)
                await pool.open_segments(tmp_path / "000002")
                await pool.join_engine(seat(5))
                await pool.leave_engine("rollout-0")

            pool.on_start = lambda name: changes.append(asyncio.ensure_future(change()))
            pool.assign(orders("p"))
            await asyncio.sleep(1.5)
            await pool.kill("episodes-0")
            await pool.until(lambda: bool(pool.records))
            return pool, set(pool.made["episodes-1"].worker._sampler.engines)

    pool, engines = run(sample())
    assert engines == {"rollout-5"}
    assert pool.made["episodes-1"].worker._sampler.newest_version == 7
    (record,) = pool.records.values()
    assert record.location is not None and record.location.file == "000002/episodes-1.log"


def test_a_successor_learns_what_changes_as_it_takes_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def sample() -> LosablePool:
        async with LosablePool(tmp_path) as pool:
            changes: list[asyncio.Future[Any]] = []

            async def take_over(*arguments: Any) -> None:
                await succession.take_over(*arguments)
                news = [pool.announce(7), pool.open_segments(tmp_path / "000002"), pool.join_engine(seat(5))]
                changes.extend(map(asyncio.ensure_future, news))  # they run before the successor has its place

            monkeypatch.setattr(episode_pool, "take_over", take_over)
            pool.assign(orders("p"))
            await asyncio.sleep(1.5)
            await pool.kill("episodes-0")
            await pool.until(lambda: bool(pool.records))
            return pool

    pool = run(sample())
    worker = pool.made["episodes-1"].worker
    assert (worker._sampler.newest_version, sorted(worker._sampler.engines)) == (7, ["rollout-0", "rollout-5"])
    (record,) = pool.records.values()
    assert record.location is not None and record.location.file == "000002/episodes-1.log"


def test_an_engine_leaves_while_another_worker_is_replaced(tmp_path: Path):
    async def leave() -> list[str]:
        async with LosablePool(tmp_path, workers=3) as pool:
            worker = pool.made["episodes-1"].worker
            leave_engine = worker.leave_engine

            async def slowly(name: str, hand_over: bool = False) -> None:
                await asyncio.sleep(1)
                await leave_engine(name, hand_over)

            worker.leave_engine = slowly  # pyright: ignore[reportAttributeAccessIssue]
            leaving = asyncio.ensure_future(pool.leave_engine("rollout-1", hand_over=True))
            await asyncio.sleep(0.1)
            await pool.kill("episodes-0")
            await leaving
            return sorted(pool.workers)

    assert run(leave()) == ["episodes-1", "episodes-2", "episodes-3"]


def test_restored_orders_outlive_a_worker_that_dies_before_they_are_assigned(tmp_path: Path):
    async def sampled() -> tuple[int, list[int]]:
        (p,) = orders("p")
        async with LosablePool(tmp_path) as pool:  # the first driver
            pool.assign([p])
            await asyncio.sleep(3)  # a completion of 200 tokens has ended, the other has 300
            await pool.flush()
            pool.made["episodes-0"].stop()
        async with LosablePool(tmp_path, epoch=2) as pool:
            await pool.adopt(tmp_path, [1], [p.key])
            await pool.kill("episodes-0")
            await pool.until(lambda: "episodes-0" not in pool.workers)
            pool.assign([p])
            await pool.until(lambda: bool(pool.records))
            assert lengths(pool) == {"p#1": [200, 400]}
            engine = pool.workers["episodes-1"].engines["rollout-0"].handle.target
            return (await engine.progress()).tokens, pool.judge.judged

    tokens, judged = run(sampled())
    assert tokens <= 200 and judged == [400]


def test_no_batch_may_be_taken_before_finished_groups_are_put_again(tmp_path: Path):
    async def flushes() -> list[bool]:
        async with LosablePool(tmp_path) as pool:
            (p,) = orders("p")
            pool.held = lambda worker: [p] if pool.records[p.key].worker == worker else []
            pool.assign([p])
            await pool.until(lambda: bool(pool.records))
            before = await pool.flush()
            await pool.kill("episodes-0")
            lost = await pool.flush()
            await pool.until(lambda: pool.records[p.key].worker == "episodes-1")
            return [before, lost, await pool.flush()]

    assert run(flushes()) == [True, False, True]


def test_three_successors_that_die_end_the_run_with_their_reasons(tmp_path: Path):
    async def die() -> None:
        async with LosablePool(tmp_path) as pool:

            def start(lost: str) -> tuple[str, Any]:
                name, handle = pool._start(lost)
                handle.target.open_segment = dead_call
                return name, handle

            pool.start_worker = start
            pool.assign(orders("p"))
            await pool.kill("episodes-0")
            await pool.until(lambda: False)

    async def dead_call(file: Path) -> None:
        raise ActorDiedError

    with pytest.raises(
        RunFailed, match=r"nobody can take its place: episodes-1: ActorDiedError.*episodes-3: ActorDied"
    ):
        run(die())


def test_workers_of_this_process_that_fail_end_the_run(tmp_path: Path):
    async def lose() -> None:
        async with LosablePool(tmp_path) as pool:
            pool.start_worker = None
            await pool.kill("episodes-0")
            await pool.until(lambda: False)

    with pytest.raises(RunFailed, match="episodes-0 works no more: it was killed"):
        run(lose())


def test_a_worker_that_leaves_its_node_loses_nothing(tmp_path: Path):
    async def leave() -> tuple[dict[str, list[int]], int, list[str]]:
        async with LosablePool(tmp_path) as pool:
            pool.assign(orders("p"))
            await asyncio.sleep(1.5)
            (engine,) = pool.workers["episodes-0"].engines.values()
            pool.on_start = lambda name: pool.made["episodes-0"].stop()
            await pool.replace_worker("episodes-0", "its node leaves")
            await pool.until(lambda: bool(pool.records))
            return lengths(pool), (await engine.handle.progress.remote()).tokens, list(pool.workers)

    assert run(leave()) == ({"p#1": [200, 400]}, 600, ["episodes-1"])


def test_bodies_are_recalled_by_any_worker_that_lives(tmp_path: Path):
    async def recall() -> tuple[list[str], list[str]]:
        async with LosablePool(tmp_path, workers=2) as pool:
            pool.assign(orders("a", "b", "c"))
            await pool.until(lambda: len(pool.records) == 3)
            assert await pool.flush()
            locations = [pool.records[f"{name}#1"].location for name in "cab"]
            await pool.kill("episodes-0")
            records = await pool.recall([location for location in locations if location is not None])
            return [record.prompt_id for record in records], [record.worker for record in records]

    assert run(recall()) == (["c", "a", "b"], ["episodes-1"] * 3)


def test_a_recall_ends_with_the_run_where_nobody_takes_over(tmp_path: Path):
    async def recall() -> None:
        async with LosablePool(tmp_path) as pool:
            pool.assign(orders("a"))
            await pool.until(lambda: bool(pool.records))
            pool.start_worker = None
            await pool.kill("episodes-0")
            location = pool.records["a#1"].location
            assert location is not None
            await pool.recall([location])

    with pytest.raises(RunFailed, match="episodes-0 works no more"):
        run(recall())
