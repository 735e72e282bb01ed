"""What a second of supervision does, over engines and episode workers in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rlframe.actors.background import Background
from rlframe.actors.in_process import InProcess
from rlframe.actors.replicas import Replica, Replicas, ReplicaState
from rlframe.cluster import drain, fleet
from rlframe.cluster.engines import EngineActors
from rlframe.cluster.fleet import Fleet
from rlframe.cluster.scaling import Reading
from rlframe.cluster.supervisor import Supervisor
from rlframe.record import requests
from rlframe.rollout.messages import Probe
from rlframe.rollout.partials import Partials
from rlframe.rollout.pool import RolloutPool
from tests.conftest import compose
from tests.tiny.episodes import TinyEngine, make_pool

WAIT_S = 60.0


class Engine(TinyEngine):
    """`on_release`: happens while the engine hands over its completions."""

    on_release: Callable[[], Awaitable[None]] | None = None

    async def release(self) -> Partials | None:
        if self.on_release:
            await self.on_release()
        return None

    async def probe(self, token_ids: list[int]) -> Probe:
        return Probe(version=0, logprobs=np.zeros(len(token_ids) - 1, np.float32))


class Engines(EngineActors):
    """Makes engines of this process: rollout-3, rollout-4, ..."""

    def make_further(self) -> Replica:
        self._made += 1
        return replica(Engine(f"rollout-{self._made + 2}"))

    async def start(self, engine: Replica) -> None: ...

    async def end(self, engine: Replica) -> str:
        return ""


def replica(engine: Engine) -> Replica:
    return Replica(name=engine.name, handle=InProcess(engine), state=ReplicaState.SERVING)


class Run:
    """An open run of engines rollout-0 and rollout-2 of an episode worker, beside a worker without an engine."""

    def __init__(self, model: Path) -> None:
        run = compose([f"model.path={model}", "rollout.engines={min: 2, max: 8}", "max_staleness=1"])
        self.warnings: list[str] = []
        self.engines = [Engine(f"rollout-{number}") for number in (0, 2)]
        self.background = Background("run under test", WAIT_S)
        rollouts = RolloutPool(Replicas("engine", list(map(replica, self.engines))), self.background, timeout_s=WAIT_S)
        self.episodes = make_pool([self.engines[0], Engine("rollout-1"), self.engines[1]], workers=2)
        self.background.run(self.episodes.leave_engine("rollout-1"))
        engines = Engines(run, model, "test", {})
        self.fleet = Fleet(run, engines, rollouts, self.episodes, None, self.background, self.warnings.append)
        self.supervisor = Supervisor(run, self.fleet, {})

    def look(self) -> None:
        self.background.run(self.supervisor.look())

    def shares(self) -> list[list[str]]:
        """Names of the engines of each worker."""
        return [list(worker.engines) for worker in self.episodes.workers.values()]


@pytest.fixture
def run(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr(drain, "draining_nodes", lambda: set())
    monkeypatch.setattr(fleet, "BARE_S", 0.0)
    run = Run(model_folder)
    yield run
    run.background.run(run.episodes.close())
    run.background.close()


def test_an_engine_that_dies_while_it_moves_to_another_worker_is_replaced(run: Run) -> None:
    assert run.shares() == [["rollout-0", "rollout-2"], []]
    run.engines[1].on_release = lambda: run.fleet.replace("rollout-2", "it was killed")
    run.look()
    while run.fleet.coming:
        run.background.run(run.background.wait(lambda: "rollout-3 does not come"))
    assert run.shares() == [["rollout-0"], ["rollout-3"]]


def test_seconds_before_a_request_tell_nothing_after_it(run: Run, tmp_path: Path) -> None:
    """After steps 1 and 2, in which the learner starves for 60 seconds, 2 engines would become 4."""
    now = {"step": 0}
    run.supervisor.open(tmp_path / "requests", lambda: Reading(learner_waits=True, slots_used=1.0, **now))
    for second in range(90):
        now["step"] = second // 30
        run.look()
    for wish in ("2", "auto"):
        requests.send(tmp_path / "requests", {"rollout": wish})
        now["step"] = 500
        run.look()
    assert (run.fleet.target, run.shares()) == (2, [["rollout-0"], ["rollout-2"]])
