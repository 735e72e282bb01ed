"""Episode workers as Ray actors, over light engines and reward workers that are actors too."""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from rlframe.actors.failure import describe
from rlframe.actors.logs import kept_in
from rlframe.actors.replicas import Replica
from rlframe.cluster.actor import start_actor
from rlframe.cluster.episodes import episode_pool, share_engines
from rlframe.cluster.placement import Slot, reward_slots
from rlframe.cluster.ray_cluster import send_user_modules
from rlframe.cluster.reward_actors import start_reward_actors
from rlframe.config.run import RunConfig
from rlframe.record import rollouts
from rlframe.rollout.episode_pool import EpisodePool
from rlframe.training import RatedGroup
from rlframe.types import ScoredGroup
from tests.conftest import compose, tiny_overrides
from tests.tiny.episodes import Followed, TinyEngine, make_order
from tests.tiny.groups import plain

NAMES = [f"o{n}" for n in range(8)]


def test_engines_of_a_worker_are_neighbours_on_their_node():
    nodes = ["a", "b"] * 10
    assert [len(share) for share in share_engines(nodes, None)] == [5, 5, 5, 5]
    assert share_engines(["a"] * 8, None) == [[0, 1, 2, 3, 4, 5, 6, 7]]
    assert share_engines(["a", "a", "b", "b"], 1) == [[0, 1, 2, 3]]


class LightEngine(TinyEngine):
    """A `TinyEngine` that is an actor, and fails or dies at a prompt of this name."""

    def __repr__(self) -> str:
        return self.name

    async def generate(self, prompts: Any, *arguments: Any, **named: Any) -> Any:
        if any(prompt.id == "raises@0" for prompt in prompts):
            print("the GPU is gone", flush=True)
            raise ValueError("no GPU")
        if any(prompt.id == "dies@0" for prompt in prompts):
            os.write(2, b"the GPU has left\n")
            os._exit(1)
        async for sampled in super().generate(prompts, *arguments, **named):
            yield sampled


@pytest.fixture(scope="module")
def run(tiny_model: Path) -> RunConfig:
    return compose([*tiny_overrides(tiny_model), "rollout.engines=2", "rollout.episode_workers=2", "reward.cpus=0"])


@pytest.fixture
def started(run: RunConfig, local_ray: None, tmp_path: Path) -> Iterator[tuple[EpisodePool, dict[str, Any]]]:
    send_user_modules()
    handles: dict[str, Any] = {}
    engines = []
    with kept_in(tmp_path / "logs"):
        for index in range(2):
            slot = Slot(kind="rollout", index=index, cpus=0, gpus=0)
            engines.append(Replica(name=slot.name, handle=start_actor(slot, LightEngine, (), handles)))
        rewards = start_reward_actors(run.reward, reward_slots(run.reward), handles)
        yield episode_pool(run, engines, rewards, handles, time.monotonic() + 60, print), handles
    for handle in handles.values():
        ray.kill(handle)


def test_two_workers_share_prompts_and_others_fetch_and_write_the_bodies(
    started: tuple[EpisodePool, dict[str, Any]], tmp_path: Path
):
    pool, handles = started
    assert {"episodes-0", "episodes-1"} <= set(handles)

    async def sample() -> tuple[list[ScoredGroup], list[Any]]:
        async with Followed(pool) as followed:
            pool.assign([make_order(name) for name in NAMES])
            groups = await followed.groups(*NAMES)
            records = [followed.records[f"{name}@0#1"] for name in NAMES]
            await pool.check_folder(tmp_path)
            rated = [RatedGroup(scored=record, advantages=[-0.5, 0.5]) for record in records]
            await pool.write(7, tmp_path / "rollouts", records, rated)
            return groups, records

    groups, records = asyncio.run(sample())
    assert [record.worker for record in records] == ["episodes-0", "episodes-1"] * 4
    assert [[c.text for c in group.group.completions] for group in groups] == [[f"{n}@0/0", f"{n}@0/1"] for n in NAMES]
    brevity = [[1.0, 1.0]] * 8  # three tokens, of a target of eight; the answers are wrong
    assert [record.rewards for record in records] == [group.rewards for group in groups] == brevity
    elsewhere = ray.remote(num_cpus=0)(lambda body: plain(body))
    assert ray.get([elsewhere.remote(record.body) for record in records]) == [plain(group) for group in groups]
    parts = ["step_000007.episodes-0.jsonl.gz", "step_000007.episodes-1.jsonl.gz"]
    assert sorted(file.name for file in (tmp_path / "rollouts").iterdir()) == parts
    written = [group.group.prompt.id for group in rollouts.read(tmp_path, None)]
    assert written == [f"o{n}@0" for n in (0, 2, 4, 6, 1, 3, 5, 7)]


def test_the_error_of_an_engine_has_its_name_and_output(started: tuple[EpisodePool, dict[str, Any]]):
    async def fail() -> None:
        async with Followed(started[0]) as followed:
            followed.pool.assign([make_order("raises")])
            await followed.groups("raises")

    with pytest.raises(ValueError) as raised:
        asyncio.run(fail())
    text = describe(raised.value)  # type: ignore[arg-type]
    assert text.startswith("rollout-0 failed with ")
    assert all(line in text for line in ["no GPU", "the GPU is gone"])


def test_an_engine_that_dies_is_reported_and_the_worker_lives(started: tuple[EpisodePool, dict[str, Any]]):
    async def die() -> dict[str, str]:
        async with Followed(started[0]) as followed:
            followed.pool.assign([make_order("dies")])
            await followed.until(lambda: any(report.broken for report in followed.reports))
            followed.pool.assign([make_order("o1")])  # to the other worker and its engine
            await followed.groups("o1")
            return next(report.broken for report in followed.reports if report.broken)

    broken = asyncio.run(die())
    assert list(broken) == ["rollout-0"]
    assert broken["rollout-0"].startswith("ActorDiedError: ")
