"""A broken engine is replaced while the run goes on: the real starter and pools, with light engines as actors."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlframe.actors.replicas import Replica, ReplicaState
from rlframe.cluster.actors import Actors
from rlframe.cluster.engines import EngineActors
from rlframe.cluster.placement import Slot, engine_slot, reward_slots
from rlframe.cluster.ray_cluster import send_user_modules
from rlframe.cluster.starter import Starter
from rlframe.config.run import RunConfig
from rlframe.errors import RunFailed
from rlframe.types import SampledCompletion, ScoredGroup
from tests.conftest import compose, tiny_overrides
from tests.tiny.episodes import Followed, TinyEngine, make_order
from tests.tiny.ray_local import start_ray


class BrokenEngine(TinyEngine):
    """The first engine of a run sends log-probabilities that are no numbers; later engines are sane."""

    def __repr__(self) -> str:
        return self.name

    def sampled(self, *place: Any) -> SampledCompletion:
        right = super().sampled(*place)
        if self.name != "rollout-0":
            return right
        return replace(right, completion=replace(right.completion, logprobs=np.full(3, np.nan, np.float32)))

    async def stamp(self, version: int) -> None:
        self.version = version

    async def join_object_store(self, address: str, namespace: str) -> None:
        pass


class LightEngines(EngineActors):
    """Makes engines without a model."""

    def make(self, slot: Slot, gang: Any) -> Replica:
        self._made += 1
        handle = ray.remote(BrokenEngine).options(name=slot.name, num_cpus=0).remote(slot.name)
        self.handles[slot.name] = handle
        return Replica(name=slot.name, handle=handle, state=ReplicaState.STARTING)


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    start_ray(2)
    send_user_modules()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def run(tiny_model: Path) -> RunConfig:
    return compose([*tiny_overrides(tiny_model), "reward.cpus=0"])


def start(run: RunConfig, warnings: list[str]) -> Actors:
    slots = {"rollout": [engine_slot(run.rollout, 0, 0)], "reward": reward_slots(run.reward)}
    starter = Starter(run, Path(run.model.path), "test", "shared", warnings.append)
    starter.engines = LightEngines(run, Path(run.model.path), "test", starter.handles)
    return starter.start(slots)


def sample(actors: Actors, *names: str) -> tuple[list[ScoredGroup], Followed]:
    assert actors.episodes is not None
    followed = Followed(actors.episodes)

    async def groups() -> list[ScoredGroup]:
        async with followed:
            actors.episodes.assign([make_order(name) for name in names])
            failing = asyncio.create_task(failure(actors))
            finished = asyncio.create_task(followed.groups(*names))
            done, _ = await asyncio.wait([failing, finished], return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()

    return actors.background.run(groups()), followed


async def failure(actors: Actors) -> Any:
    """Never returns; raises the error that would end the run."""
    while True:
        await actors.background.wait(lambda: "nothing happens")


def end(actors: Actors) -> None:
    actors.background.close()
    for handle in actors.starter.handles.values():
        ray.kill(handle)


def test_completions_of_a_broken_engine_wait_for_the_engine_in_its_place(run: RunConfig, local_ray: None):
    actors = start(run, warnings := [])
    try:
        [group], followed = sample(actors, "o0")
        assert [completion.text for completion in group.group.completions] == ["o0@0/0", "o0@0/1"]
        assert [list(report.broken) for report in followed.reports if report.broken] == [["rollout-0"]]
        assert len(warnings) == 1
        assert warnings[0].startswith("rollout-0 is broken, and another engine takes its place: 3 completions in a row")
        states = {replica.name: replica.state for replica in actors.rollouts.replicas}
        assert states == {"rollout-0": ReplicaState.DEAD, "rollout-1": ReplicaState.SERVING}
        assert list(actors.starter.handles) == ["reward-0", "rollout-1"]
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(actors.rollouts.replicas["rollout-0"].handle.progress.remote(), timeout=30)
    finally:
        end(actors)


def test_a_broken_engine_that_cannot_be_replaced_ends_the_run(run: RunConfig, local_ray: None):
    actors = start(run.model_copy(update={"placement": "colocated"}), [])
    reason = r"(?s)rollout-0 was broken \(3 completions in a row.*nan\), and no engine can take its place: placement="
    try:
        with pytest.raises(RunFailed, match=reason):
            sample(actors, "o0")
    finally:
        end(actors)
