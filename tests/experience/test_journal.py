"""A run goes on from its log: after the learner's death, after the driver's, and from every byte of a torn log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlframe.errors import RunFailed
from tests.tiny.episodes import TinyJudge
from tests.tiny.feed import hold, release
from tests.tiny.logged import LoggedRun, heads, taken


@pytest.fixture
def run(tmp_path: Path) -> Iterator[type[LoggedRun]]:
    opened: list[LoggedRun] = []

    class Run(LoggedRun):
        def __init__(self, run_dir: Path = tmp_path / "run", **settings: object) -> None:
            super().__init__(run_dir, **settings)
            opened.append(self)

    yield Run
    for each in opened:
        if not each.background._closing:
            each.close()


STEPS = [["o0", "o1"], ["o2", "o3"], ["o4", "o5"], ["o6", "o7"]]


def test_after_a_learners_death_the_same_batches_come_again(run: type[LoggedRun]) -> None:
    driver = run().begin()
    assert taken(driver, 3) == STEPS[:3]
    sampled = list(driver.engine.asked)
    driver.feed.rewind(1)  # the learner stands at version 1 again
    driver.version = 1
    assert driver.feed.replaying
    assert (driver.step(), driver.feed.replaying) == (["o2", "o3"], True)
    assert (driver.step(), driver.feed.replaying) == (["o4", "o5"], False)
    assert driver.engine.asked == sampled  # nothing was sampled for it
    assert driver.step() == ["o6", "o7"]


def test_ahead_engines_sample_on_while_a_learner_catches_up(run: type[LoggedRun]) -> None:
    driver = run(max_staleness=4, late="mask").begin()
    first = [driver.step(), driver.step()]
    driver.feed.rewind(0)
    driver.version = 0
    asked = len(driver.engine.asked)
    assert [driver.step(), driver.step()] == first
    rest = [name for step in taken(driver, 3) for name in step]
    assert len(driver.engine.asked) > asked
    assert sorted(first[0] + first[1] + rest) == sorted(f"o{n}" for n in range(10))


def test_a_new_driver_trains_on_logged_batches_and_then_goes_on(run: type[LoggedRun], tmp_path: Path) -> None:
    driver = run().begin()
    assert taken(driver, 3) == STEPS[:3]
    again = run(driver.killed(tmp_path / "copy")).begin(0, resume=True)  # the learner stands at the base model
    assert taken(again, 3) == STEPS[:3]
    assert again.engine.asked == []  # no engine has sampled
    assert again.step() == STEPS[3]
    assert again.engine.asked == ["o6", "o7"]


def test_a_checkpoint_shortens_the_replay_and_the_log(run: type[LoggedRun], tmp_path: Path) -> None:
    driver = run().begin()
    taken(driver, 2)
    driver.checkpoint()
    assert heads(driver.folder) == ["000002"]
    driver.step()
    again = run(driver.killed(tmp_path / "copy")).begin(2, resume=True)
    assert taken(again, 2) == STEPS[2:]


def test_a_checkpoint_that_was_not_written_whole_keeps_the_log(run: type[LoggedRun], tmp_path: Path) -> None:
    driver = run().begin()
    driver.step()
    driver.checkpoint()
    driver.step()
    driver.checkpoint(whole=False)
    driver.step()
    again = run(driver.killed(tmp_path / "copy")).begin(1, resume=True)
    assert taken(again, 3) == STEPS[1:]


def test_groups_in_flight_come_back_and_open_ones_keep_their_attempt(run: type[LoggedRun], tmp_path: Path) -> None:
    driver = run(max_staleness=1).begin()
    hold(driver.engine, "o0")
    assert driver.step() == ["o1", "o2"]
    driver.background.run(driver.journal.flush())
    again = run(driver.killed(tmp_path / "copy"), max_staleness=1).begin(0, resume=True)
    again.engine.version = 1
    assert again.step() == ["o1", "o2"]
    assert again.step() == ["o0", "o3"]
    assert again.engine.asked[0] == "o0" and "o3" not in again.engine.asked  # o3 was scored before the death
    assert {entry.admitted.number for entry in again.feed.ledger.in_flight} == {1}


def test_heads_in_the_middle_of_a_log_agree_with_its_events(run: type[LoggedRun], tmp_path: Path) -> None:
    driver = run(max_staleness=3, late="mask").begin()
    hold(driver.engine, "o1", "o4")
    for _ in range(3):
        driver.step()
        driver.checkpoint(whole=False)  # with groups in flight, scored and open
    assert heads(driver.folder) == ["000001", "000002", "000003", "000004"]
    again = run(driver.killed(tmp_path / "copy"), max_staleness=3, late="mask").begin(0, resume=True)
    assert again.warnings == []
    names = [name for step in taken(again, 6) for name in step]
    assert len(set(names)) == 12


def test_prompts_of_a_log_are_deleted_when_they_are_trained(run: type[LoggedRun]) -> None:
    driver = run(max_staleness=4, late="mask").begin()
    hold(driver.engine, "o0")
    for step in range(3):
        driver.step()
        driver.checkpoint()
        assert heads(driver.folder)[0] == "000001", step  # holds the tokens of o0
    release(driver.engine, "o0")
    while "o0" not in driver.step():
        pass
    driver.step()
    driver.checkpoint()
    assert "000001" not in heads(driver.folder)


def test_a_batch_taken_before_a_signal_is_trained_first(run: type[LoggedRun], tmp_path: Path) -> None:
    driver = run().begin()
    driver.step()
    driver.feed.take(2)  # a signal comes before the step
    driver.checkpoint()
    again = run(driver.killed(tmp_path / "copy")).begin(1, resume=True)
    assert taken(again, 2) == STEPS[1:3]


def test_no_batch_is_taken_while_groups_of_a_dead_worker_are_read_again(run: type[LoggedRun]) -> None:
    driver = run().begin()
    [worker] = driver.feed.episodes.workers.values()
    worker.again.add("o7@0#1")

    async def put_again() -> None:
        asyncio.get_running_loop().call_later(30, worker.again.clear)

    driver.background.run(put_again())
    assert driver.step() == ["o0", "o1"]
    assert driver.background.now() >= 30


def test_a_given_up_prompt_is_named_and_replaced(run: type[LoggedRun], tmp_path: Path) -> None:
    driver = run().begin()
    hold(driver.engine, "o1")

    async def give_up() -> None:
        asyncio.get_running_loop().call_later(5, driver.feed._give_up, "o1@0#1", "rollout-0 died thrice")

    driver.background.run(give_up())
    assert driver.step() == ["o0", "o2"]
    assert driver.warnings == ["o1@0 is given up, and nothing trains on it: rollout-0 died thrice"]
    again = run(driver.killed(tmp_path / "copy")).begin(0, resume=True)
    assert (again.feed.ledger.dropped, again.feed.ledger.given_up) == (1, 1)


def test_groups_replaced_before_a_death_are_not_counted_again(run: type[LoggedRun], tmp_path: Path) -> None:
    judge = TinyJudge(equal=("o1@0",))
    driver = run(judge=judge, dynamic_sampling=True).begin()
    assert driver.step() == ["o0", "o2"]
    again = run(driver.killed(tmp_path / "copy"), judge=judge, dynamic_sampling=True).begin(0, resume=True)
    assert again.step() == ["o0", "o2"]
    assert (again.feed.ledger.dropped, again.feed.metrics()["rollout/groups_replaced"]) == (1, 0)


def test_without_a_log_a_learner_cannot_be_replaced(run: type[LoggedRun]) -> None:
    driver = run().begin()
    driver.journal.close()
    driver.feed.journal = None
    with pytest.raises(RunFailed, match=r"checkpoint\.every=0: the run keeps neither checkpoints nor a log"):
        driver.feed.rewind(0)


def test_a_learner_older_than_the_log_is_refused(run: type[LoggedRun]) -> None:
    driver = run().begin()
    taken(driver, 2)
    driver.checkpoint()
    driver.step()
    driver.step()
    with pytest.raises(RunFailed, match=r"stands at version 1, .* the batches of versions \[2, 3\], not \[1, 2, 3\]"):
        driver.feed.rewind(1)


def test_a_checkpoint_saved_while_replaying_knows_the_batches_to_come(run: type[LoggedRun], tmp_path: Path) -> None:
    driver = run().begin()
    taken(driver, 3)
    driver.feed.rewind(0)
    driver.version = 0
    driver.step()
    state = driver.checkpoint()  # of step 1; engines are at version 3
    assert (state["in_flight"], state["taken"]) == ([[2, 1], [3, 1], [4, 1], [5, 1]], 2)
    again = run(driver.killed(tmp_path / "copy")).begin(1, resume=True)
    assert taken(again, 3) == STEPS[1:]
    assert again.engine.asked == ["o6", "o7"]


@pytest.mark.parametrize("damaged", ["driver.log", "episodes-0.log"])
def test_a_broken_log_is_named_and_the_checkpoint_taken(run: type[LoggedRun], tmp_path: Path, damaged: str) -> None:
    driver = run().begin()
    driver.step()
    state = driver.checkpoint()
    taken(driver, 2)
    copy = driver.killed(tmp_path / "copy")
    file = copy / "ledger" / "000002" / damaged
    content = bytearray(file.read_bytes())
    content[60] ^= 1
    file.write_bytes(content)
    again = run(copy)
    again.feed.restore(state)
    again.begin(1, resume=True)
    [warning] = again.warnings
    assert "step 1 is followed by new samples: " in warning and f"{file}, byte " in warning
    assert taken(again, 2) == STEPS[1:3]  # sampled anew
    assert again.engine.asked == ["o2", "o3", "o4", "o5"]
