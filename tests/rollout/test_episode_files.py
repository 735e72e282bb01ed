"""Rollout files that episode workers write, beside their other work."""

import asyncio
from pathlib import Path

import pytest

from benchmarks.async_parts.clock import VirtualLoop
from rlframe.errors import RunFailed, Stalled
from rlframe.record.rollouts import read
from rlframe.training import RatedGroup
from tests.tiny.episodes import Followed, TinyEngine, make_order, make_pool

NAMES = [f"o{n}" for n in range(4)]


def write(folder: Path, step: int, workers: int) -> None:
    """Samples a group for each name, the last name first, and lets the workers write them as a step."""

    async def run() -> None:
        async with Followed(
            make_pool([TinyEngine(f"rollout-{n}") for n in range(workers)], workers=workers)
        ) as followed:
            followed.pool.assign([make_order(name) for name in NAMES])
            await followed.groups(*NAMES)
            records = [followed.records[f"{name}@0#1"] for name in reversed(NAMES)]
            rated = [RatedGroup(scored=record, advantages=[-0.5, 0.5]) for record in records]
            await followed.pool.write(step, folder, records, rated)

    asyncio.run(run())


def test_a_worker_alone_writes_the_step_in_the_order_of_the_take(tmp_path: Path):
    write(tmp_path, 3, workers=1)
    assert [file.name for file in tmp_path.iterdir()] == ["step_000003.jsonl.gz"]
    assert [group.group.prompt.id for group in read(tmp_path, None)] == ["o3@0", "o2@0", "o1@0", "o0@0"]


@pytest.mark.parametrize("before, now", [(1, 2), (2, 1), (4, 2)])
def test_a_step_that_is_taken_again_leaves_no_old_part(tmp_path: Path, before: int, now: int):
    write(tmp_path, 2, workers=1)
    write(tmp_path, 3, workers=before)
    write(tmp_path, 3, workers=now)
    groups = [group.group.prompt.id for group in read(tmp_path, None)]
    assert sorted(groups[:4]) == sorted(groups[4:]) == ["o0@0", "o1@0", "o2@0", "o3@0"]
    assert len(groups) == 8
    assert len(list(tmp_path.glob("step_000003.*"))) == now


def test_parts_of_the_newest_step_come_first_and_by_worker(tmp_path: Path):
    write(tmp_path, 9, workers=2)
    write(tmp_path, 10, workers=1)
    assert [group.group.prompt.id[:2] for group in read(tmp_path, None)] == [
        "o3",
        "o2",
        "o1",
        "o0",
        "o2",
        "o0",
        "o3",
        "o1",
    ]


def test_a_failed_write_names_worker_file_and_remedy(tmp_path: Path):
    (tmp_path / "step_000003.jsonl.gz.tmp").mkdir()
    message = r"episodes-0 cannot write .*step_000003.jsonl.gz: .*Is a directory.*run_dir must have free space"
    with pytest.raises(RunFailed, match=message):
        write(tmp_path, 3, workers=1)


def test_a_failed_write_reaches_the_run_by_the_next_report(tmp_path: Path):
    (tmp_path / "step_000003.jsonl.gz.tmp").mkdir()

    async def run() -> None:
        followed = await Followed(make_pool([TinyEngine()])).__aenter__()
        followed.pool.assign([make_order("o0")])
        await followed.groups("o0")
        record = followed.records["o0@0#1"]
        await followed.pool.write(3, tmp_path, [record], [RatedGroup(scored=record, advantages=[0.0, 0.0])])
        await followed.until(lambda: False)

    with pytest.raises(RunFailed, match="episodes-0 cannot write"):
        asyncio.run(run())


def test_a_folder_that_a_worker_does_not_see_is_refused(tmp_path: Path):
    async def check(sees: bool) -> None:
        pool = make_pool([TinyEngine(), TinyEngine("rollout-1")], workers=2)
        if not sees:  # as a worker on another machine

            async def blind(file: Path) -> bool:
                return False

            pool.workers["episodes-1"].handle.target.sees = blind
        await pool.check_folder(tmp_path)

    asyncio.run(check(sees=True))
    with pytest.raises(RunFailed, match=r"the machines of episodes-1 do not see .*rollout.episode_workers=0"):
        asyncio.run(check(sees=False))
    assert not list(tmp_path.iterdir())


def test_a_write_that_never_ends_is_named(tmp_path: Path):
    async def run() -> None:
        pool = make_pool([TinyEngine()])
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        pool.workers["episodes-0"].handle.target._writer.writes.add(never)
        await pool.close(0.01)

    with pytest.raises(Stalled, match=r"episodes-0 did not write its rollouts within 0\.01 s"):
        asyncio.run(run())


def test_a_file_that_another_machine_sees_late_is_waited_for(tmp_path: Path):
    loop, file = VirtualLoop(), tmp_path / "late"
    loop.clock.runs = 1
    worker = make_pool([TinyEngine()]).workers["episodes-0"].handle.target
    loop.call_later(2, file.touch)
    assert loop.run_until_complete(worker.sees(file))
    assert not loop.run_until_complete(worker.sees(tmp_path / "never"))
    loop.close()


def test_a_body_that_is_lost_ends_a_run_that_waits_for_its_files(tmp_path: Path):
    async def run() -> None:
        async with Followed(make_pool([TinyEngine()])) as followed:
            lost = asyncio.get_running_loop().create_future()
            lost.set_exception(ConnectionError("the body is lost"))
            await followed.pool.workers["episodes-0"].handle.write.remote(3, tmp_path / "file", [(lost, [0.0])])

    with pytest.raises(ConnectionError, match="the body is lost"):
        asyncio.run(run())


def test_a_step_waits_for_a_disk_that_is_two_files_behind(tmp_path: Path):
    async def run() -> None:
        async with Followed(make_pool([TinyEngine()])) as followed:
            bodies = [asyncio.get_running_loop().create_future() for _ in range(3)]
            worker = followed.pool.workers["episodes-0"].handle
            followed.pool.assign([make_order("o0")])
            (group,) = await followed.groups("o0")
            for step in range(2):
                await worker.write.remote(step, tmp_path / str(step), [(bodies[step], [0.0, 0.0])])
            third = worker.write.remote(2, tmp_path / "2", [(bodies[2], [0.0, 0.0])])
            done, _ = await asyncio.wait([third], timeout=0)
            assert not done
            for body in bodies:
                body.set_result(group)
            await third

    asyncio.run(run())
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0", "1", "2"]
