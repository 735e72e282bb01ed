"""Real processes that are killed or stopped: an engine's actor, vLLM's own processes, and what is left of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from benchmarks.async_parts.engine import TimedEngine
from rlframe.cluster import start as cluster
from rlframe.rollout import plugin
from rlframe.rollout.death import EngineDead
from rlframe.rollout.messages import EngineBounds, EngineSeat
from rlframe.types import SampledCompletion
from tests.rollout.conftest import SAMPLING, prompt
from tests.tiny.mortal_engines import Watch

PARENT = """
import multiprocessing, os, sys, time
from tests.rollout.test_engine_processes import child

if __name__ == "__main__":
    ready, told = multiprocessing.Pipe()
    multiprocessing.get_context("spawn").Process(target=child, args=(told,)).start()
    print(ready.recv(), flush=True)
    time.sleep(600)
"""


def child(told: Any) -> None:
    """A process of vLLM that has loaded the plugin."""
    plugin.register()
    told.send(os.getpid())
    time.sleep(600)


def eventually(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_stopped_process_of_vllm_ends_with_its_killed_parent(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    environment = os.environ | {
        "RLFRAME_ENGINE": "rollout-0",
        "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path]),
    }
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, signal.SIGSTOP)
        parent.kill()
    eventually(lambda: gone(pid))


def test_the_death_of_vllm_s_process_is_told_and_leaves_nothing(actors: cluster.Actors) -> None:
    replica = actors.add_engine()
    handle = replica.handle
    actor = ray.get(handle.__ray_call__.remote(lambda _: os.getpid()))
    processes = psutil.Process(actor).children(recursive=True)
    (core,) = [process for process in processes if "EngineCore" in "".join(process.cmdline()) + process.name()]

    async def sample() -> list[SampledCompletion]:
        answers = handle.generate.options(num_returns="streaming").remote(
            [prompt("p", "What is 2 + 3?")], replace(SAMPLING, max_tokens=300)
        )
        return [await reference async for reference in answers]

    async def kill_meanwhile() -> None:
        probed = (await handle.progress.remote()).tokens  # by the comparison with the other engine
        running = asyncio.ensure_future(sample())
        while (await handle.progress.remote()).tokens == probed:
            pass
        core.kill()
        await running

    with pytest.raises(EngineDead, match=r"vLLM's processes of rollout-\d have died"):
        asyncio.run(kill_meanwhile())
    with pytest.raises(EngineDead):
        ray.get(handle.progress.remote())
    actors.remove_engine(replica.name)
    eventually(lambda: all(gone(process.pid) for process in processes))


def test_a_killed_actor_s_completions_go_on_in_five_seconds(actors: cluster.Actors) -> None:
    actor_class = ray.remote(TimedEngine).options(num_cpus=0, max_concurrency=100)
    handles = [actor_class.remote(f"timed-{n}", slots=8, token_s=0.01, load_s=0.0) for n in range(2)]
    pids = ray.get([handle.__ray_call__.remote(lambda _: os.getpid()) for handle in handles])

    async def run() -> tuple[Watch, float]:
        run = Watch(engines={}, bounds=EngineBounds(silence_s=60.0, first_token_s=60.0, attempts=3))
        for n, handle in enumerate(handles):
            run.sampler.join(EngineSeat(name=f"timed-{n}", handle=handle, slots=8))
        run.sample(p=[500, 600, 700])
        while len(run.folded("p")) < 100:
            await asyncio.sleep(0.05)
        told = run.told["p", 0][-1][1].end
        os.kill(pids[0], signal.SIGKILL)
        killed_at = time.monotonic()
        while run.told["p", 0][-1][1].end <= told or run.told["p", 0][-1][0] == 1:
            await asyncio.sleep(0.05)
        moved_s = time.monotonic() - killed_at
        await run.until_all_ended()
        await run.tasks.cancel()
        return run, moved_s

    watch, moved_s = asyncio.run(run())
    assert watch.lengths() == {("p", 0): 500, ("p", 1): 600, ("p", 2): 700}
    assert list(watch.broken) == ["timed-0"]
    assert watch.broken["timed-0"][1].startswith("ActorDiedError: ")
    assert moved_s < 60  # about 1.5 on an idle machine
    print(f"next token after {moved_s:.1f} s")
    for handle in handles[1:]:
        ray.kill(handle)
