"""Parts of a run that do not fit their device or machine, by a plan's figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlframe.plan.devices import Gpu
from rlframe.plan.engine_memory import CONTEXT, EngineMemory
from rlframe.plan.host_memory import HostMemory
from rlframe.plan.layout import Layout, Node
from rlframe.plan.learner_memory import RankMemory
from rlframe.plan.numbers import gib

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig

NAMED = 3  # actors that a line names


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that does not fit."""

    where: str  # "rank", "engine", "host", "shared memory", "GPUs"
    text: str
    certain: bool  # kept bytes alone exceed the device or the machine; else the estimate of passing bytes does too


def too_few_gpus(placed: Layout) -> list[Problem]:
    if not placed.unplaced:
        return []
    there = sum(node.machine.gpus for node in placed.nodes)
    more = [f"{len(placed.unplaced) - NAMED} more"] if len(placed.unplaced) > NAMED else []
    names = ", ".join([*placed.unplaced[:NAMED], *more])
    text = f"the run needs {placed.gpus} GPUs, and the machines have {there}: no room for {names}"
    return [Problem(where="GPUs", text=text, certain=False)]


def rank_problems(rank: RankMemory, gpu: Gpu | None) -> list[Problem]:
    if gpu is None or not rank.on_gpu:
        return []
    if rank.kept_bytes > gpu.memory:
        text = f"a rank keeps {gib(rank.kept_bytes)} GiB, and a {gpu.name} has {gib(gpu.memory)}"
        return [Problem(where="rank", text=text, certain=True)]
    if (peak := rank.peak_bytes + CONTEXT) > gpu.memory:
        text = (
            f"a rank needs {gib(peak)} GiB in the {rank.worst_instant} ({gib(rank.kept_bytes)} kept), and a {gpu.name} "
            f"has {gib(gpu.memory)}"
        )
        return [Problem(where="rank", text=text, certain=False)]
    return []


def engine_problems(run: RunConfig, engine: EngineMemory, gpu: Gpu | None) -> list[Problem]:
    if engine.on_gpu and gpu is None:
        return []
    weights = engine.kept["weights"]
    if engine.on_gpu and weights > engine.limit:
        text = (
            f"an engine's worker keeps {gib(weights)} GiB of weights, and rollout.gpu_memory_share="
            f"{run.rollout.gpu_memory_share:g} of a {'' if gpu is None else gpu.name} is {gib(engine.limit)}"
        )
        return [Problem(where="engine", text=text, certain=True)]
    if engine.cache < engine.sequence_bytes:
        text = (
            f"an engine's worker has {gib(max(0, engine.cache))} GiB for keys and values, and one sequence of "
            f"{run.max_model_len} tokens needs {gib(engine.sequence_bytes)}"
        )
        return [Problem(where="engine", text=text, certain=False)]
    return []


def host_problems(hosts: list[tuple[Node, HostMemory]]) -> list[Problem]:
    problems: dict[str, Problem] = {}
    for node, memory in hosts:
        machine = node.machine
        whole, has = memory.peak + memory.shm, f"has {gib(machine.host_bytes)}"
        if memory.least > machine.host_bytes:
            text = f"ranks and engines keep {gib(memory.least)} GiB of the memory of {machine.name}, and it {has}"
            problems.setdefault("kept", Problem(where="host", text=text, certain=machine.measured))
        elif whole > machine.host_bytes:
            text = (
                f"{machine.name} needs {gib(memory.peak)} GiB of host memory at the worst instant and "
                f"{gib(memory.shm)} for the object store, and it {has}"
            )
            problems.setdefault("peak", Problem(where="host", text=text, certain=False))
        if memory.shm > machine.shm_bytes:
            text = (
                f"the object store of {machine.name} needs {gib(memory.shm)} GiB of /dev/shm, and it has "
                f"{gib(machine.shm_bytes)}: Ray would write weights to the disk"
            )
            problems.setdefault("shm", Problem(where="shared memory", text=text, certain=False))
    return list(problems.values())
