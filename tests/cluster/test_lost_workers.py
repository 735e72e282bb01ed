"""Episode workers that are killed or stopped: another process goes on with their work. Real actors, timed engines."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray

from benchmarks.async_parts.engine import TimedEngine
from rlframe.actors import pings
from rlframe.actors.replicas import Replica
from rlframe.cluster import episodes
from rlframe.cluster.actor import start_actor
from rlframe.cluster.episodes import episode_pool
from rlframe.cluster.placement import Slot, reward_slots
from rlframe.cluster.ray_cluster import send_user_modules
from rlframe.cluster.reward_actors import reward_pool, start_reward_actors
from rlframe.config.run import RunConfig
from rlframe.record import rollouts
from rlframe.reward.pool import RewardPool
from rlframe.rollout.episode_pool import EpisodePool
from rlframe.rollout.messages import Order
from rlframe.schema import user_modules
from rlframe.training import RatedGroup
from tests.conftest import compose, tiny_overrides
from tests.tiny.ended import ended
from tests.tiny.episodes import Followed
from tests.tiny.groups import plain
from tests.tiny.logged_worker import order

TOKEN_S = 0.01
DEADLINE_S = 300.0  # of a start on a busy machine


@pytest.fixture(scope="module")
def run(tiny_model: Path) -> RunConfig:
    workers = ["rollout.engines=2", "rollout.episode_workers=1", "reward.cpus=0", "reward.timeout_s=5"]
    return compose([*tiny_overrides(tiny_model), *workers])


class PacedEngine(TimedEngine):
    """A timed engine whose completions go on at another speed at once."""

    async def pace(self, speed: float) -> None:
        self.set_speed(speed)
        for request in [*self._running]:
            if request.timer is not None:
                request.timer.cancel()
            self._end(request)  # which sets the timer anew where tokens are left


class Lost(Followed):
    """A pool with a log whose worker a test may kill or stop."""

    def __init__(self, pool: EpisodePool, ledger: Path, orders: list[Order]) -> None:
        super().__init__(pool)
        self.ledger = ledger
        self.orders = {order.key: order for order in orders}
        self.warnings: list[str] = []
        pool.warn = self.warnings.append
        pool.held = self._held

    async def begin(self) -> None:
        await self.pool.open_segments(self.ledger / "000001")
        self.pool.assign(list(self.orders.values()))

    @property
    def tokens(self) -> int:
        """Sampled by all engines, by their latest reports."""
        return sum(engine.tokens for engine in self.engines.values())

    async def signal(self, number: int) -> int:
        """Sends a signal to the worker's process -> its pid."""
        (worker,) = self.pool.workers.values()
        pid = await worker.handle.__ray_call__.remote(lambda _: os.getpid())
        os.kill(pid, number)
        return pid

    def _held(self, worker: str) -> list[Order]:
        return [self.orders[key] for key, record in self.records.items() if record.worker == worker]


@pytest.fixture
def pool(run: RunConfig, local_ray: None) -> Iterator[EpisodePool]:
    user_modules.add("benchmarks.async_parts")  # the actors' processes may not find it
    send_user_modules()
    handles: dict[str, Any] = {}
    engines = []
    settings = {"slots": 16, "token_s": TOKEN_S, "load_s": 0.0}
    for index in range(2):
        slot = Slot(kind="rollout", index=index, cpus=0, gpus=0)
        engines.append(Replica(name=slot.name, handle=start_actor(slot, PacedEngine, (), handles, settings)))
    rewards = start_reward_actors(run.reward, reward_slots(run.reward), handles)
    ray.get([handle.__ray_ready__.remote() for handle in handles.values()], timeout=DEADLINE_S)
    yield episode_pool(run, engines, rewards, handles, time.monotonic() + DEADLINE_S, print)
    for handle in handles.values():
        ray.kill(handle)


async def sampled(engines: list[Any]) -> int:
    """Tokens of all engines."""
    return sum([(await engine.progress.remote()).tokens for engine in engines])


def test_after_a_kill_groups_go_on_and_finished_ones_come_again(pool: EpisodePool, tmp_path: Path):
    short, long = order("short", 10, 20), [order(f"long{n}", 1800, 2000) for n in range(3)]

    async def kill() -> tuple[Lost, Any, int]:
        async with Lost(pool, tmp_path, [short, *long]) as lost:
            await lost.begin()
            engines = [seat.handle for worker in pool.workers.values() for seat in worker.engines.values()]
            await lost.until(lambda: short.key in lost.records and lost.tokens > 2000)
            before = lost.records[short.key]
            body = plain(await pool.fetch(before))
            assert await pool.flush()
            await lost.signal(signal.SIGKILL)
            while await sampled(engines) < 5000:  # tokens that nobody but the engines knows
                await asyncio.sleep(0.1)
            await asyncio.gather(*[engine.pace.remote(0.001) for engine in engines])  # while the successor starts
            await lost.until(lambda: list(pool.workers) == ["episodes-1"])
            await asyncio.gather(*[engine.pace.remote(1.0) for engine in engines])
            await lost.until(lambda: all(lost.records.get(o.key, before) is not before for o in [short, *long]))
            assert await pool.flush()
            assert list(pool.workers) == ["episodes-1"]
            after = lost.records[short.key]
            assert (after.worker, after.location) == ("episodes-1", before.location)
            assert plain(await pool.fetch(after)) == body
            return lost, [lost.records[o.key].lengths for o in long], await sampled(engines)

    lost, lengths, tokens = asyncio.run(kill())
    assert lengths == [[1800, 2000]] * 3
    # The engines lived and were not done when the successor came: they gave their tokens, and none is sampled twice.
    assert tokens < 30 + 3 * 3800 + 1000
    assert len(lost.warnings) == 1
    assert "episodes-0 is lost, and another episode worker takes its place: " in lost.warnings[0]


def test_successors_that_die_or_hang_at_their_start_have_successors(
    pool: EpisodePool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "dies").touch()
    (tmp_path / "hangs").touch()

    def make_rewards(*arguments: Any) -> RewardPool:
        if (tmp_path / "dies").exists():
            (tmp_path / "dies").unlink()
            os._exit(1)
        if (tmp_path / "hangs").exists():
            (tmp_path / "hangs").unlink()
            time.sleep(1000)
        return reward_pool(*arguments)

    monkeypatch.setattr(episodes, "reward_pool", make_rewards)
    pool.start_s = DEADLINE_S

    async def kill() -> tuple[Lost, list[str]]:
        async with Lost(pool, tmp_path, [order("o", 300, 400)]) as lost:
            await lost.begin()
            await lost.until(lambda: lost.tokens > 100)
            await lost.signal(signal.SIGKILL)
            async with asyncio.timeout(DEADLINE_S):
                while (tmp_path / "hangs").exists():
                    await asyncio.sleep(0.1)
            monkeypatch.setattr(pings, "LOOK_S", 0.01)  # the wait for the one that hangs takes 3 s in place of 300
            await lost.until(lambda: bool(lost.records))
            return lost, list(pool.workers)

    lost, workers = asyncio.run(kill())
    assert workers == ["episodes-3"] and not list(tmp_path.glob("[dh]*s"))
    assert lost.records["o#1"].lengths == [300, 400]


def test_successors_that_are_made_at_the_same_time_have_names_of_their_own(pool: EpisodePool):
    assert pool.start_worker is not None
    actors: Any = pool.start_worker.__self__  # pyright: ignore[reportFunctionMemberAccess]
    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(lambda _: actors.start([], None), range(8)))
    assert sorted(names) == [f"episodes-{index}" for index in range(1, 9)]


def test_a_stopped_worker_is_ended_and_its_rollouts_come_from_the_log(pool: EpisodePool, tmp_path: Path):
    short, long = order("short", 10, 20), order("long", 1500, 1400)
    folder = tmp_path / "rollouts"

    async def stop() -> tuple[int, list[int]]:
        async with Lost(pool, tmp_path / "ledger", [short, long]) as lost:
            await lost.begin()
            await lost.until(lambda: short.key in lost.records and lost.tokens > 100)
            assert await pool.flush()
            pid = await lost.signal(signal.SIGSTOP)
            record = lost.records.pop(short.key)  # a step has taken it
            rated = RatedGroup(scored=record, advantages=[-0.5, 0.5])
            writing = asyncio.ensure_future(pool.write(7, folder, [record], [rated]))
            await lost.until(lambda: long.key in lost.records)
            await writing
            return pid, lost.records[long.key].lengths

    pid, lengths = asyncio.run(stop())
    assert lengths == [1500, 1400]
    (written,) = rollouts.read(folder, None)
    assert (written.group.prompt.id, [len(c.token_ids) for c in written.group.completions]) == ("short", [10, 20])
    asyncio.run(ended(pid))
