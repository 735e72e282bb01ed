"""An actor answers while it computes, computes on one thread in order, and has a file for its output."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from rlframe.actors.activity import doing
from rlframe.actors.logs import kept_in
from rlframe.cluster.actor import start_actor
from rlframe.cluster.placement import Slot, visible_gpus


class Rank:
    """Computes until a file appears."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def connect(self) -> int:
        return threading.get_ident()

    def step(self, number: int, end: Path) -> tuple[int, int]:
        with doing(f"backward of micro-batch {number} of 8"):
            while not end.exists():
                time.sleep(0.01)
        return threading.get_ident(), number


class Judge:
    """Blocks its event loop until a file appears, as no reward should."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def score(self, end: Path) -> str:
        with doing("reward judge", "gsm8k-104"):
            while not end.exists():
                time.sleep(0.01)
        await asyncio.sleep(0)
        return "scored"


@pytest.fixture
def handles(local_ray: None, tmp_path: Path) -> Iterator[dict[str, Any]]:
    handles: dict[str, Any] = {}
    with kept_in(tmp_path / "logs"):
        yield handles
    for handle in handles.values():
        ray.kill(handle)


def started(cls: type, handles: dict[str, Any], **options: Any) -> Any:
    slot = Slot(kind=cls.__name__.lower(), index=1, cpus=0, gpus=0, environment=visible_gpus(0))
    return start_actor(slot, cls, (), handles, **options)


def activity(actor: Any) -> str:
    """The activity of a busy actor, which has just got a call."""
    while (doing := ray.get(actor.activity.remote(), timeout=60)) is None:
        time.sleep(0.01)
    assert doing.seconds >= 0
    return doing.text


def test_a_rank_tells_its_activity_while_it_computes(handles: dict[str, Any], tmp_path: Path) -> None:
    rank = started(Rank, handles)
    step = rank.step.remote(3, tmp_path / "end")
    assert activity(rank) == "backward of micro-batch 3 of 8"
    (tmp_path / "end").touch()
    assert ray.get(step, timeout=60)[1] == 3
    assert ray.get(rank.activity.remote(), timeout=60) is None


def test_a_rank_computes_on_one_thread_in_the_order_of_calls(handles: dict[str, Any], tmp_path: Path) -> None:
    rank = started(Rank, handles)
    thread = ray.get(rank.connect.remote(), timeout=60)
    (tmp_path / "end").touch()
    calls = []
    for number in range(20):
        calls += [rank.step.remote(number, tmp_path / "end"), rank.activity.remote()]
    assert ray.get(calls, timeout=60)[::2] == [(thread, number) for number in range(20)]


def test_an_actor_tells_its_activity_while_its_event_loop_is_blocked(handles: dict[str, Any], tmp_path: Path) -> None:
    judge = started(Judge, handles, max_concurrency=1000)
    score = judge.score.remote(tmp_path / "end")
    assert activity(judge) == "reward judge of gsm8k-104"
    (tmp_path / "end").touch()
    assert ray.get(score, timeout=60) == "scored"


def test_an_actor_has_a_file_for_its_output_with_its_name(handles: dict[str, Any], tmp_path: Path) -> None:
    rank = started(Rank, handles)

    def say(_: Any) -> int:
        print("of Python", flush=True)
        os.system("echo of a child >&2")
        return os.getpid()

    pid = ray.get(rank.__ray_call__.remote(say), timeout=60)
    header, *lines = (tmp_path / "logs" / "rank-1.log").read_text().splitlines()
    assert header.startswith(f"=== pid {pid} on ")
    assert lines[-2:] == ["of Python", "of a child"]  # after marks of Ray's
