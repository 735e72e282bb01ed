"""`Plan`: a run's demand and its fit on machines. `make_plan` computes it; nothing is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlframe.plan.devices import Gpu, gpu_named
from rlframe.plan.engine_memory import CONTEXT, EngineMemory, engine_memory
from rlframe.plan.host_memory import HostMemory, host_memory, synced_bytes
from rlframe.plan.layout import Layout, Node, layout
from rlframe.plan.learner_memory import RankMemory, rank_memory
from rlframe.plan.machines import Machine
from rlframe.plan.numbers import gib
from rlframe.plan.shapes import ModelShapes
from rlframe.plan.throughput import StepTimes, step_times

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that does not fit."""

    where: str  # "rank", "engine", "host", "shared memory", "GPUs"
    text: str
    certain: bool  # kept bytes alone exceed the device or the machine; else the estimate of passing bytes does too


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The demand of a run, and its problems on the given machines."""

    run: RunConfig
    shapes: ModelShapes
    machines: Sequence[Machine]
    layout: Layout
    rank: RankMemory
    engine: EngineMemory
    learner_gpu: Gpu | None
    engine_gpu: Gpu | None
    hosts: list[tuple[Node, HostMemory]]
    synced_bytes: int
    times: StepTimes | None
    problems: list[Problem]

    @property
    def fits(self) -> bool:
        return not self.problems

    @property
    def gpu_hours(self) -> float | None:
        """Of all steps, evaluations and checkpoints apart."""
        return self.times and self.times.step_s * self.run.steps * self.layout.gpus / 3600


def make_plan(run: RunConfig, shapes: ModelShapes, machines: Sequence[Machine]) -> Plan:
    """Raises ConfigError for `plan.gpu`, and for an engine that can be on no machine."""
    placed = layout(run, machines)
    learner_gpu, engine_gpu = (_gpu(run, placed, kind, machines) for kind in ("learner", "rollout"))
    rank, engine = rank_memory(run, shapes), engine_memory(run, shapes, engine_gpu)
    hosts = [
        (node, host_memory(run, shapes, node, rank, engine, driver=index == 0))
        for index, node in enumerate(placed.nodes)
    ]
    ranks_on_node = max((node.count("learner") for node in placed.nodes), default=0)
    times = step_times(run, shapes, engine, learner_gpu=learner_gpu, engine_gpu=engine_gpu, ranks_on_node=ranks_on_node)
    problems = [
        *_too_few_gpus(placed),
        *_rank_problems(run, rank, learner_gpu),
        *_engine_problems(run, engine, engine_gpu),
        *_host_problems(hosts),
    ]
    return Plan(
        run=run,
        shapes=shapes,
        machines=machines,
        layout=placed,
        rank=rank,
        engine=engine,
        learner_gpu=learner_gpu,
        engine_gpu=engine_gpu,
        hosts=hosts,
        synced_bytes=synced_bytes(run, shapes),
        times=times,
        problems=problems,
    )


def _gpu(run: RunConfig, placed: Layout, kind: str, machines: Sequence[Machine]) -> Gpu | None:
    """The smallest kind of GPU under the actors of a kind; `plan.gpu` where machines do not say."""
    if not (run.learner.gpus if kind == "learner" else run.rollout.gpus):
        return None
    used = [node.machine.gpu for node in placed.nodes if node.count(kind)] or [m.gpu for m in machines if m.gpus]
    known = [gpu for gpu in used if gpu is not None]
    if known:
        return min(known, key=lambda gpu: gpu.memory)
    return gpu_named(run.plan.gpu) if run.plan.gpu else None


def _too_few_gpus(placed: Layout) -> list[Problem]:
    if not placed.unplaced:
        return []
    there = sum(node.machine.gpus for node in placed.nodes)
    names = ", ".join(placed.unplaced[:3]) + (
        f" and {len(placed.unplaced) - 3} more" if len(placed.unplaced) > 3 else ""
    )
    text = f"the run needs {placed.gpus} GPUs, and the machines have {there}: no room for {names}"
    return [Problem(where="GPUs", text=text, certain=False)]


def _rank_problems(run: RunConfig, rank: RankMemory, gpu: Gpu | None) -> list[Problem]:
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


def _engine_problems(run: RunConfig, engine: EngineMemory, gpu: Gpu | None) -> list[Problem]:
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


def _host_problems(hosts: list[tuple[Node, HostMemory]]) -> list[Problem]:
    problems: dict[str, Problem] = {}
    for node, memory in hosts:
        machine = node.machine
        whole, has = memory.peak + memory.shm, f"has {gib(machine.host_bytes)}"
        if memory.kept > machine.host_bytes:
            text = f"the processes of {machine.name} keep {gib(memory.kept)} GiB of host memory, and it {has}"
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
