"""An episode worker goes on with the orders of a dead one, from what that one has logged."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlframe.errors import RunFailed
from rlframe.record.segments import read_body
from rlframe.rollout.messages import Order
from tests.tiny.groups import plain
from tests.tiny.logged_worker import CountingJudge, LoggedWorker, order, run, segment, timed_engine

LENGTHS = (200, 500, 900)  # tokens; at 0.01 s a token they end after 2, 5 and 9 s
ORDER = order("p", *LENGTHS)


async def tokens_of(engine: Any) -> int:
    return (await engine.progress()).tokens


async def sample(seconds: float, ledger: Path, judge: CountingJudge, engine: Any, order: Order = ORDER) -> LoggedWorker:
    """A worker that has sampled the group for so long."""
    first = LoggedWorker("episodes-0", [engine], judge)
    await first.worker.open_segment(segment(ledger, 1, "episodes-0"))
    await first.worker.sample([order])
    await first.follow(seconds)
    return first


async def die_after(
    seconds: float, ledger: Path, judge: CountingJudge, engine: Any, order: Order = ORDER
) -> LoggedWorker:
    """A worker that dies while its group is sampled."""
    first = await sample(seconds, ledger, judge, engine, order)
    await first.die()
    return first


async def go_on(
    ledger: Path, judge: CountingJudge, engine: Any, seconds: float = 10.0, order: Order = ORDER
) -> LoggedWorker:
    """`order`: as the settings of a resumed run have it."""
    second = LoggedWorker("episodes-1", [engine], judge)
    await second.worker.open_segment(segment(ledger, 1, "episodes-1"))
    assert await second.worker.adopt([segment(ledger, 1, "episodes-0")], [ORDER.key, "other#1"]) == [ORDER.key]
    await second.worker.sample([order])
    await second.follow(seconds)
    return second


def resized(max_tokens: int, *lengths: int) -> Order:
    """The order with a group of these lengths."""
    shorter = order("p", *lengths)
    return replace(shorter, sampling=replace(shorter.sampling, max_tokens=max_tokens))


def test_engines_that_live_sample_no_token_twice(tmp_path: Path):
    async def tokens() -> tuple[list[int], int, list[int]]:
        engine, judge = timed_engine("rollout-0"), CountingJudge()
        first = await sample(3.5, tmp_path, judge, engine)
        first.stop()
        second = await go_on(tmp_path, judge, engine)
        return second.records[ORDER.key].lengths, await tokens_of(engine), judge.judged

    lengths, sampled, judged = run(tokens())
    assert lengths == [200, 500, 900]
    assert sampled == 200 + 500 + 900
    assert judged == [200, 500, 900]  # the verdict of the first was in the log


def test_other_engines_go_on_from_tokens_of_the_last_second(tmp_path: Path):
    async def tokens() -> tuple[list[int], int]:
        judge, engine = CountingJudge(), timed_engine("rollout-1")
        await die_after(3.5, tmp_path, judge, timed_engine("rollout-0"))
        second = await go_on(tmp_path, judge, engine)
        return second.records[ORDER.key].lengths, await tokens_of(engine)

    lengths, sampled = run(tokens())
    assert lengths == [200, 500, 900]
    # At 3.5 s the log has the answer of 2 s or of 3 s, of both completions that had not ended.
    assert (500 - 300) + (900 - 300) <= sampled <= (500 - 200) + (900 - 200)


def test_a_completion_without_a_verdict_is_judged_by_the_next(tmp_path: Path):
    async def judged() -> tuple[list[int], list[int]]:
        slow, fast = CountingJudge(seconds=100.0), CountingJudge()
        await die_after(3.5, tmp_path, slow, timed_engine("rollout-0"))
        await go_on(tmp_path, fast, timed_engine("rollout-1"))
        return slow.judged, fast.judged

    assert run(judged()) == ([200], [200, 500, 900])


def test_a_group_whose_verdicts_are_all_in_the_log_needs_no_engine(tmp_path: Path):
    async def lengths() -> tuple[list[int], int]:
        judge, engine = CountingJudge(), timed_engine("rollout-1")
        first = LoggedWorker("episodes-0", [timed_engine("rollout-0")], judge)
        await first.worker.open_segment(segment(tmp_path, 1, "episodes-0"))
        first.worker._score_group = lambda group: asyncio.sleep(3600)  # type: ignore[method-assign]
        await first.worker.sample([ORDER])
        await first.follow(11.0)
        await first.die()
        second = await go_on(tmp_path, judge, engine, seconds=0.1)
        return second.records[ORDER.key].lengths, await tokens_of(engine)

    assert run(lengths()) == ([200, 500, 900], 0)


def test_a_finished_group_is_put_again_with_the_same_body(tmp_path: Path):
    async def records() -> tuple[Any, Any, int]:
        judge, engine = CountingJudge(), timed_engine("rollout-1")
        first = await die_after(11.0, tmp_path, judge, timed_engine("rollout-0"))
        second = await go_on(tmp_path, judge, engine, seconds=0.1)
        return first.records[ORDER.key], second.records[ORDER.key], await tokens_of(engine)

    before, after, sampled = run(records())
    assert (before.worker, after.worker, sampled) == ("episodes-0", "episodes-1", 0)
    assert after.location == before.location
    assert plain(after.body) == plain(before.body) == plain(read_body(tmp_path, before.location))
    assert after.rewards == before.rewards == [1.0, 1.0, 1.0]


def test_bodies_are_recalled_as_records(tmp_path: Path):
    async def recalled() -> tuple[Any, Any]:
        judge = CountingJudge()
        first = await die_after(11.0, tmp_path, judge, timed_engine("rollout-0"))
        second = LoggedWorker("episodes-0", [], judge)
        await second.worker.open_segment(segment(tmp_path, 2, "episodes-0"))
        location = first.records[ORDER.key].location
        assert location is not None
        return first.records[ORDER.key], await second.worker.recall([location, location])

    record, again = run(recalled())
    assert [plain(each.body) for each in again] == [plain(record.body)] * 2
    assert [each.location for each in again] == [record.location] * 2


def test_a_body_needs_no_file_of_an_earlier_epoch(tmp_path: Path):
    async def record() -> Any:
        worker = LoggedWorker("episodes-0", [timed_engine("rollout-0")], CountingJudge())
        await worker.worker.open_segment(segment(tmp_path, 1, "episodes-0"))
        await worker.worker.sample([ORDER])
        await worker.follow(6.0)  # two completions have ended
        await worker.worker.open_segment(segment(tmp_path, 2, "episodes-0"))
        await worker.follow(5.0)
        await worker.worker.flush()
        return worker.records[ORDER.key]

    found = run(record())
    shutil.rmtree(tmp_path / "000001")
    assert found.location.file == "000002/episodes-0.log"
    assert plain(read_body(tmp_path, found.location)) == plain(found.body)


def test_an_order_goes_on_from_segments_of_two_epochs(tmp_path: Path):
    async def tokens() -> tuple[list[int], int]:
        judge, engine = CountingJudge(), timed_engine("rollout-1")
        first = LoggedWorker("episodes-0", [timed_engine("rollout-0")], judge)
        files = [segment(tmp_path, epoch, "episodes-0") for epoch in (1, 2)]
        await first.worker.sample([ORDER])
        for file in files:
            await first.worker.open_segment(file)
            await first.follow(2.5)
        await first.die()
        second = LoggedWorker("episodes-1", [engine], judge)
        await second.worker.open_segment(segment(tmp_path, 2, "episodes-1"))
        await second.worker.adopt(files, [ORDER.key])
        await second.worker.sample([ORDER])
        await second.follow(9.0)
        return second.records[ORDER.key].lengths, await tokens_of(engine)

    lengths, sampled = run(tokens())
    assert lengths == [200, 500, 900]
    assert sampled <= (500 - 300) + (900 - 300)


def test_a_run_without_a_log_writes_nothing(tmp_path: Path):
    async def record() -> Any:
        worker = LoggedWorker("episodes-0", [timed_engine("rollout-0")], CountingJudge())
        await worker.worker.sample([ORDER])
        await worker.follow(10.0)
        await worker.worker.flush()
        await worker.worker.close()
        return worker.records[ORDER.key]

    assert run(record()).location is None


def test_a_log_that_cannot_be_written_names_worker_file_and_remedy(tmp_path: Path):
    (tmp_path / "000001").touch()
    with pytest.raises(
        RunFailed, match=r"episodes-0 cannot use .*000001/episodes-0.log of the run's log: .*free space"
    ):
        run(die_after(1.0, tmp_path, CountingJudge(), timed_engine("rollout-0")))


def test_a_broken_segment_is_a_warning_and_its_rest_is_sampled_again(tmp_path: Path):
    async def second() -> LoggedWorker:
        judge = CountingJudge()
        await die_after(3.5, tmp_path, judge, timed_engine("rollout-0"))
        file = segment(tmp_path, 1, "episodes-0")
        data = bytearray(file.read_bytes())
        data[60] ^= 1  # in the first event
        file.write_bytes(data)
        worker = LoggedWorker("episodes-1", [timed_engine("rollout-1")], judge)
        await worker.worker.open_segment(segment(tmp_path, 1, "episodes-1"))
        assert await worker.worker.adopt([file], [ORDER.key]) == []
        await worker.worker.sample([ORDER])
        await worker.follow(10.0)
        return worker

    worker = run(second())
    assert worker.records[ORDER.key].lengths == [200, 500, 900]
    (warning,) = worker.warnings
    assert "000001/episodes-0.log, byte 26: the frame's checksum is wrong" in warning


def test_tokens_beyond_a_lower_max_tokens_are_sampled_anew(tmp_path: Path):
    async def lengths() -> tuple[list[int], int]:
        await die_after(4.5, tmp_path, CountingJudge(), timed_engine("rollout-0"))  # logs 300 of 500 and 900 tokens
        engine = timed_engine("rollout-1")
        second = await go_on(tmp_path, CountingJudge(), engine, order=resized(250, 200, 210, 250))
        return second.records[ORDER.key].lengths, await tokens_of(engine)

    assert run(lengths()) == ([200, 210, 250], 460)


def test_tokens_that_fill_a_lower_max_tokens_are_kept(tmp_path: Path):
    async def sampled() -> tuple[list[int], int]:
        await die_after(4.5, tmp_path, CountingJudge(), timed_engine("rollout-0"))
        engine = timed_engine("rollout-1")
        second = await go_on(tmp_path, CountingJudge(), engine, order=resized(300, 200, 300, 300))
        return second.records[ORDER.key].lengths, await tokens_of(engine)

    assert run(sampled()) == ([200, 300, 300], 0)


@pytest.mark.parametrize(
    ("before", "group", "judged"), [((100, 200, 300, 900), (100, 200), []), ((900, 200, 300), (900, 200), [900])]
)
def test_a_smaller_group_keeps_completions_0_and_1(
    tmp_path: Path, before: tuple[int, ...], group: tuple[int, ...], judged: list[int]
):
    async def smaller() -> tuple[list[int], list[int]]:
        judge = CountingJudge()
        await die_after(4.5, tmp_path, CountingJudge(), timed_engine("rollout-0"), order("p", *before))
        second = await go_on(tmp_path, judge, timed_engine("rollout-1"), order=order("p", *group))
        return second.records[ORDER.key].lengths, judge.judged

    assert run(smaller()) == ([*group], judged)


def test_a_completion_is_judged_again_by_a_reward_term_that_is_new(tmp_path: Path):
    async def judged() -> list[int]:
        earlier, judge = CountingJudge(), CountingJudge()
        earlier.name = "accuracy"
        await die_after(5.5, tmp_path, earlier, timed_engine("rollout-0"))  # judged 200 and 500 of 900 tokens
        second = await go_on(tmp_path, judge, timed_engine("rollout-1"))
        assert list(second.records[ORDER.key].verdicts) == ["math"]
        return judge.judged

    assert run(judged()) == [200, 500, 900]


def test_a_completion_whose_verdict_failed_is_judged_again(tmp_path: Path):
    async def judged() -> tuple[list[int], list[float | None]]:
        earlier, judge = CountingJudge(), CountingJudge()
        earlier.fails = True
        await die_after(5.5, tmp_path, earlier, timed_engine("rollout-0"))  # judged 200 and 500 of 900 tokens
        second = await go_on(tmp_path, judge, timed_engine("rollout-1"))
        return judge.judged, second.records[ORDER.key].rewards

    lengths, rewards = run(judged())
    assert lengths == [200, 500, 900]
    assert None not in rewards


def test_adopted_tokens_wait_for_the_first_training_orders(tmp_path: Path):
    async def adopted() -> list[list[str]]:
        first = await sample(3.5, tmp_path, CountingJudge(), timed_engine("rollout-0"), ORDER)
        await first.worker.sample([order("q", 900)])
        await first.follow(2.5)
        await first.die()
        second = LoggedWorker("episodes-1", [timed_engine("rollout-1")], CountingJudge())
        await second.worker.open_segment(segment(tmp_path, 2, "episodes-1"))
        await second.worker.adopt([segment(tmp_path, 1, "episodes-0")], ["p#1", "q#1"])
        keys = []
        for orders in ([], [order("held-out", 5)], [replace(ORDER, taught=True)]):
            await second.worker.sample(orders)
            keys.append(list(second.worker._adopted))
        return keys

    assert run(adopted()) == [["p#1", "q#1"], ["p#1", "q#1"], []]
