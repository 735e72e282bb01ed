"""Episode workers in this process, over engines and a judge that finish what a test lets them."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.async_parts.clock import VirtualBackground
from rlframe.actors.in_process import InProcess
from rlframe.rollout.messages import EngineSeat
from tests.tiny.episodes import PAIR, Followed, TinyEngine, TinyJudge, make_order, make_pool

NAMES = [f"o{n}" for n in range(6)]


def texts(group: Any) -> list[str]:
    return [completion.text for completion in group.group.completions]


def test_a_group_is_whole_and_in_order_however_completions_come():
    async def scored() -> Any:
        engine = TinyEngine(order=lambda places: places[::-1])
        async with Followed(make_pool([engine])) as followed:
            followed.pool.assign([make_order("o3"), make_order("o4")])
            return await followed.groups("o3", "o4"), followed.records["o3@0#1"], engine.calls

    groups, record, calls = asyncio.run(scored())
    assert [texts(group) for group in groups] == [["o3@0/0", "o3@0/1"], ["o4@0/0", "o4@0/1"]]
    assert [group.rewards for group in groups] == [[0.0, 1.0]] * 2
    assert (record.prompt_id, record.worker, record.rewards, record.lengths) == (
        "o3@0",
        "episodes-0",
        [0.0, 1.0],
        [3, 3],
    )
    assert record.body is groups[0]
    assert calls == [["o3@0/0", "o3@0/1", "o4@0/0", "o4@0/1"]]


def test_orders_that_come_together_are_one_call_of_each_engine():
    async def calls() -> list[list[list[str]]]:
        engines = [TinyEngine(f"rollout-{n}") for n in range(2)]
        async with Followed(make_pool(engines)) as followed:
            wide = replace(PAIR, completions=3)
            followed.pool.assign([make_order("o0"), make_order("o1", wide), make_order("o2"), make_order("o3")])
            await followed.groups("o0", "o1", "o2", "o3")
            return [engine.calls for engine in engines]

    # Loads: 2 and 3 after o0 and o1, 4 after o2, then o3 goes to the engine with 3. Another sampling is another call.
    assert asyncio.run(calls()) == [
        [["o0@0/0", "o0@0/1", "o2@0/0", "o2@0/1"]],
        [["o1@0/0", "o1@0/1", "o1@0/2"], ["o3@0/0", "o3@0/1"]],
    ]


def test_rewards_judge_a_completion_while_others_are_sampled():
    async def verdicts() -> tuple[list[str], int]:
        engine, judge = TinyEngine(), TinyJudge()
        engine.held = {"o0@0/1"}
        judge.stuck = {"o0@0/0"}
        async with Followed(make_pool([engine], judge, heartbeat_s=0.01)) as followed:
            followed.pool.assign([make_order("o0")])
            await followed.until(lambda: bool(followed.reports[-1:] and followed.reports[-1].scoring))
            return list(followed.reports[-1].scoring.items()), followed.reports[-1].completions

    assert asyncio.run(verdicts()) == ([("reward-0", 1)], 1)


def test_least_busy_worker_by_slot_gets_the_next_order():
    async def shares() -> list[list[str]]:
        engines = [TinyEngine(f"rollout-{n}") for n in range(3)]
        pool = make_pool(engines, workers=2)  # episodes-0 has rollout-0 and rollout-2: 16 slots, episodes-1 has 8
        async with Followed(pool) as followed:
            pool.assign([make_order(name) for name in NAMES])
            await followed.groups(*NAMES)
            return [engine.asked for engine in engines]

    # Completions a slot: 2/16 < 0 is false, so o1 goes to the second worker, then 2/16 < 2/8: o2; 4/16 = 2/8: o3.
    assert asyncio.run(shares()) == [["o0", "o3"], ["o1", "o4"], ["o2", "o5"]]


def test_a_free_slot_is_told_once_and_admits_a_group_that_is_larger():
    async def rooms() -> list[Any]:
        engine = TinyEngine()
        engine.held = {"o0@0/2"}
        pool = make_pool([engine], slots=2, heartbeat_s=60)
        seen: list[Any] = [pool.has_room()]
        async with Followed(pool) as followed:
            pool.assign([make_order("o0", replace(PAIR, completions=3))])
            seen.append((pool.has_room(), pool.completions))
            await followed.until(lambda: bool(followed.reports))  # without a heartbeat: room is news
            seen.append((pool.has_room(), pool.completions, len(followed.reports)))
            engine.held = set()
            await followed.groups("o0")
            seen.append((pool.completions, len(followed.reports)))
        return seen

    assert asyncio.run(rooms()) == [True, (False, 3), (True, 1, 1), (0, 2)]


def test_ahead_admits_a_tenth_more_than_the_slots():
    async def counts() -> list[int]:
        engine = TinyEngine()
        engine.held = {f"{name}@0/{index}" for name in NAMES for index in range(2)}
        admitted = []
        for ahead in (0.0, 0.5):
            pool = make_pool([engine], slots=8, ahead=ahead)
            async with Followed(pool):
                while pool.has_room():
                    pool.assign([make_order(f"a{pool.completions}")])
                admitted.append(pool.completions)
        return admitted

    assert asyncio.run(counts()) == [8, 12]


def fails(engine: TinyEngine, judge: TinyJudge) -> Coroutine[Any, Any, None]:
    async def run() -> None:
        async with Followed(make_pool([engine], judge)) as followed:
            followed.pool.assign([make_order("o0")])
            await followed.groups("o0")

    return run()


def test_an_error_of_an_engine_is_raised_as_it_is():
    engine = TinyEngine()
    engine.error = OSError("rollout-0 lost its GPU")
    with pytest.raises(OSError, match="rollout-0 lost its GPU"):
        asyncio.run(fails(engine, TinyJudge()))


def test_an_error_of_a_reward_worker_is_raised_as_it_is():
    judge = TinyJudge()
    judge.error = RuntimeError("worker 0 died")
    with pytest.raises(RuntimeError, match="worker 0 died"):
        asyncio.run(fails(TinyEngine(), judge))


def test_an_engine_that_leaves_hands_its_completions_to_the_others():
    async def left() -> tuple[Any, list[list[str]]]:
        engines = [TinyEngine(f"rollout-{n}") for n in range(2)]
        engines[0].held = {"o0@0/1"}
        async with Followed(make_pool(engines)) as followed:
            followed.pool.assign([make_order("o0")])
            await followed.until(lambda: followed.pool.completions == 1)
            await followed.pool.leave_engine("rollout-0")
            return (await followed.groups("o0"))[0], engines[1].calls

    group, calls = asyncio.run(left())
    assert texts(group) == ["o0@0/0", "o0@0/1"]
    assert calls == [["o0@0/1"]]


@pytest.mark.parametrize("lost", [1, 2])
def test_while_workers_are_lost_the_others_get_orders_until_they_are_full(lost: int):
    """A worker of 8 slots has room for 8 x 1.25 completions, which are 5 orders; without a living worker, all take."""

    async def assigned() -> list[int]:
        pool = make_pool([TinyEngine(f"rollout-{n}") for n in range(2)], workers=2, ahead=0.25)
        for worker in list(pool.workers.values())[-lost:]:
            worker.lose("it was killed")
        for order in range(100):
            if pool.has_room():
                pool.assign([make_order(f"o{order}")])
        return [worker.completions for worker in pool.workers.values()]

    assert asyncio.run(assigned()) == ([10, 0] if lost == 1 else [10, 10])


def test_without_an_engine_completions_wait_for_the_next():
    async def joined() -> tuple[Any, list[list[str]]]:
        first, second = TinyEngine(), TinyEngine("rollout-1")
        first.held = {"o0@0/0", "o0@0/1"}
        async with Followed(make_pool([first])) as followed:
            followed.pool.assign([make_order("o0")])
            await followed.pool.leave_engine("rollout-0")
            followed.pool.assign([make_order("o1")])
            await followed.pool.join_engine(EngineSeat(name="rollout-1", handle=InProcess(second), slots=4))
            return await followed.groups("o0", "o1"), second.calls

    groups, calls = asyncio.run(joined())
    assert [texts(group) for group in groups] == [["o0@0/0", "o0@0/1"], ["o1@0/0", "o1@0/1"]]
    assert calls == [["o0@0/0", "o0@0/1", "o1@0/0", "o1@0/1"]]


def test_groups_that_finish_during_a_rest_are_one_report():
    async def reports(rest_s: float) -> list[int]:
        engine = TinyEngine(seconds=0.01)
        async with Followed(make_pool([engine], rest_s=rest_s)) as followed:
            followed.pool.assign([make_order("o0"), make_order("o1")])
            await followed.groups("o0", "o1")
            return [len(report.finished) for report in followed.reports if report.finished]

    background = VirtualBackground("rest", stall_timeout_s=60)
    try:
        assert background.run(reports(rest_s=0.0)) == [1, 1]
        assert background.run(reports(rest_s=0.05)) == [2]
    finally:
        background.close()
