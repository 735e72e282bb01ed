"""Two engines receive weights by nccl from two ranks: vLLM's classes over a stand-in for NCCL (tests/tiny/nccl.py)."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from rlframe.errors import Stalled
from rlframe.types import SampledCompletion
from tests.conftest import compose, tiny_overrides
from tests.tiny import nccl
from tests.tiny.engines import sample
from tests.tiny.stubbed import start_with_ranks
from tests.weights.test_sync import PROMPTS, SAMPLING, disagreement, end_engine, nudge, step, sync

WORKER = "tests.tiny.nccl_worker.StubbedWorker"


@pytest.fixture(scope="module")
def run(tiny_model: Path) -> RunConfig:
    settings = ["rollout.engines=2", "rollout.cpus=0", f"+rollout.engine_args.worker_cls={WORKER}", "learner.lr=0.02"]
    run = compose([*tiny_overrides(tiny_model), *settings])
    return run.model_copy(
        update={"weights": run.weights.model_copy(update={"backend": "nccl"})}
    )  # refused without GPUs


@pytest.fixture(scope="module")
def harm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder in which a file named by a rank breaks the next tensor of this rank."""
    return tmp_path_factory.mktemp("harm")


@pytest.fixture(scope="module")
def actors(run: RunConfig, harm: Path) -> Iterator[cluster.Actors]:
    with start_with_ranks(nccl.StubbedRank, run, **{nccl.HARM: str(harm)}) as actors:
        yield actors


def states(actors: cluster.Actors) -> list[str]:
    return [replica.state for replica in actors.rollouts.replicas]


def test_both_engines_take_a_step_s_weights_and_agree(actors: cluster.Actors, run: RunConfig) -> None:
    assert disagreement(actors, run) < 2e-3
    for _ in range(3):
        step(actors, run)
    assert disagreement(actors, run) > 0.3
    synced = sync(actors)
    assert synced.repaired == [] and synced.arrivals.stall_s > 0
    assert disagreement(actors, run) < 2e-3  # one prompt's group on each engine


def test_an_engine_with_a_wrong_tensor_is_repaired_alone(actors: cluster.Actors, run: RunConfig, harm: Path) -> None:
    nudge(actors)
    (harm / "2").touch()  # the second engine's worker
    assert sync(actors).repaired == ["rollout-1"]
    assert states(actors) == ["serving", "serving"]
    assert disagreement(actors, run) < 2e-3


def test_prompts_of_an_idle_engine_wait_until_a_broadcast_ends(actors: cluster.Actors) -> None:
    nudge(actors)
    engines = list(actors.rollouts.replicas)
    actors.weights.transport.meet(engines)
    actors.rollouts.pause(engines)

    async def sample_while_paused() -> list[SampledCompletion]:
        calls = [sample(engine.handle, PROMPTS, SAMPLING) for engine in engines]
        sampling = asyncio.gather(*calls)
        done, _ = await asyncio.wait([sampling], timeout=2)
        assert not done
        fingerprints = await asyncio.to_thread(actors.learner.send)
        await asyncio.to_thread(actors.rollouts.resume, engines, actors.learner.version, fingerprints)
        return [sampled for samples in await sampling for sampled in samples]

    completions = asyncio.run(sample_while_paused())
    versions = {span.version for sampled in completions for span in sampled.completion.versions}
    assert versions == {actors.learner.version}


@pytest.mark.long
def test_a_late_engine_serves_from_the_next_sync_on(actors: cluster.Actors, run: RunConfig) -> None:
    end_engine(actors, "rollout-0")
    actors.add_engine()
    assert states(actors) == ["dead", "serving", "starting"]
    nudge(actors)
    assert sync(actors).repaired == []
    assert states(actors) == ["dead", "serving", "serving"]
    assert disagreement(actors, run) < 2e-3


@pytest.mark.long
def test_a_killed_engine_is_left_out_and_replaced_at_the_next_sync(actors: cluster.Actors, run: RunConfig) -> None:
    killed = actors.rollouts.replicas["rollout-1"]
    os.kill(ray.get(killed.handle.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
    nudge(actors)
    sync(actors)
    assert states(actors)[:3] == ["dead", "dead", "serving"]
    deadline = time.monotonic() + 120
    while states(actors)[3:] != ["starting"]:  # the engine in its place, which has started
        assert time.monotonic() < deadline
        time.sleep(0.1)
    nudge(actors)
    sync(actors)
    assert states(actors)[2:] == ["serving", "serving"]
    assert disagreement(actors, run) < 2e-3


class Engine:
    """An engine that raises or waits where it should meet the ranks, which then wait for its workers in NCCL."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s

    def join_learner(self, init_info: dict[str, Any]) -> None:
        time.sleep(self.wait_s)
        raise ArithmeticError("no such device")


def test_an_engine_s_error_ends_the_wait_of_the_ranks(actors: cluster.Actors) -> None:
    engines = {"rollout-7": ray.remote(num_cpus=0)(Engine).remote(0.0)}
    with pytest.raises(ArithmeticError, match="no such device"):
        actors.learner.join_engines("nccl", engines, 1, 1 << 20)


def test_an_engine_that_does_not_answer_is_named(actors: cluster.Actors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.learner, "timeout_s", 1.0)
    engines = {"rollout-7": ray.remote(num_cpus=0)(Engine).remote(60.0)}
    with pytest.raises(Stalled, match=r"rollout-7 did not meet the learner's ranks within 1 s"):
        actors.learner.join_engines("nccl", engines, 1, 1 << 20)
