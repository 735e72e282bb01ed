"""Silence of an engine, on a clock of the test, and the reports that carry it."""

import asyncio

from rlframe.reward.pool import merge_metrics
from rlframe.rollout.messages import EngineProgress, EngineSeat
from rlframe.rollout.watched_engine import WatchedEngine
from tests.tiny.episodes import Followed, TinyEngine, make_order, make_pool


def progress(tokens: int, *, version: int = 0, loading: bool = False) -> EngineProgress:
    return EngineProgress(tokens=tokens, version=version, loading=loading, busy_slot_s=0.0, recomputed_tokens=0)


def watched() -> WatchedEngine:
    return WatchedEngine(seat=EngineSeat(name="rollout-0", handle=None, slots=4))


def test_a_report_before_the_first_answer_says_so():
    engine = watched()
    before = engine.report(0.0).answered
    engine.answer(progress(0), 1.0)
    assert (before, engine.report(1.0).answered) == (False, True)


def test_silence_begins_with_the_first_completion_and_ends_with_a_token():
    engine = watched()
    engine.answer(progress(0), 1.0)
    assert engine.report(50.0).silent_s == 0  # idle
    engine.add(2, 60.0)
    assert engine.report(63.0).silent_s == 3
    engine.answer(progress(0), 65.0)
    assert engine.report(65.0).silent_s == 5
    engine.answer(progress(1), 66.0)
    assert engine.report(68.0).silent_s == 2
    engine.remove(70.0)
    assert engine.report(71.0).silent_s == 1
    engine.remove(72.0)
    assert engine.report(99.0).silent_s == 0


def test_a_load_is_no_silence_but_an_engine_without_answers_is():
    engine = watched()
    engine.add(1, 0.0)
    engine.answer(progress(3), 0.0)
    engine.answer(progress(3, loading=True), 30.0)
    assert engine.report(31.0).silent_s == 1
    engine.answer(progress(3, loading=True), 60.0)
    assert engine.report(61.0).silent_s == 1
    assert engine.report(90.0).silent_s == 30  # the last answer is old, whatever it said


def test_an_engine_is_asked_while_it_works_or_has_a_version_to_load():
    engine = watched()
    assert engine.should_ask(0.0, 1.0, newest=0)  # its version is unknown
    engine.asked_at = 0.0
    engine.answer(progress(0), 0.0)
    assert not engine.should_ask(5.0, 1.0, newest=0)
    assert engine.should_ask(5.0, 1.0, newest=1)
    engine.answer(progress(0, version=1), 5.0)
    assert not engine.should_ask(6.0, 1.0, newest=1)
    engine.add(1, 6.0)
    engine.asked_at = 5.5
    assert not engine.should_ask(6.0, 1.0, newest=1)
    assert engine.should_ask(6.5, 1.0, newest=1)


def test_reports_tell_tokens_of_a_completion_that_has_not_ended():
    async def tokens() -> list[int]:
        engine = TinyEngine()
        engine.held = {"o0@0/1"}
        seen: list[int] = []
        async with Followed(make_pool([engine], heartbeat_s=0.005)) as followed:
            followed.pool.assign([make_order("o0")])
            await followed.until(lambda: followed.pool.completions == 1)  # the other one, of 3 tokens, has come
            while len(seen) < 3:
                await followed.until(lambda: [each.tokens for each in followed.engines.values()] == [engine.tokens])
                seen.append(engine.tokens)
                engine.tokens += 2  # the unfinished completion goes on
        return seen

    assert asyncio.run(tokens()) == [3, 5, 7]


def test_pools_over_the_same_workers_add_requests_and_share_facts():
    mine = {"reward/retried": 2.0, "reward/workers_replaced": 1.0, "reward/code/isolation": 2.0}
    other = mine | {"reward/retried": 3.0, "reward/workers_replaced": 2.0}
    assert merge_metrics([mine, other, {}]) == {
        "reward/retried": 5.0,
        "reward/workers_replaced": 2.0,
        "reward/code/isolation": 2.0,
    }


def test_reports_between_two_heartbeats_carry_no_engines():
    async def engines() -> list[int]:
        async with Followed(make_pool([TinyEngine()], heartbeat_s=30)) as followed:
            followed.pool.assign([make_order("o0")])
            await followed.groups("o0")
            followed.pool.assign([make_order("o1")])
            await followed.groups("o1")
            return [len(report.engines or ()) for report in followed.reports]

    first, *later = asyncio.run(engines())
    assert first == 1
    assert set(later) == {0}
