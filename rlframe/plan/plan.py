"""`Plan`: a run's demand and its fit on machines. `make_plan` computes it; nothing is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from rlframe.cluster.placement import teacher_kind
from rlframe.errors import ConfigError
from rlframe.plan.devices import Gpu, gpu_named
from rlframe.plan.engine_memory import EngineMemory, engine_memory, teacher_memory
from rlframe.plan.host_memory import HostMemory, host_memory, synced_bytes
from rlframe.plan.layout import Layout, Node, layout
from rlframe.plan.learner_memory import RankMemory, rank_memory
from rlframe.plan.machines import Machine
from rlframe.plan.problems import Problem, engine_problems, host_problems, rank_problems, too_few_gpus
from rlframe.plan.shapes import ModelShapes
from rlframe.plan.throughput import StepTimes, step_times

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The demand of a run, and its problems on the given machines."""

    run: RunConfig
    shapes: ModelShapes
    machines: Sequence[Machine]
    layout: Layout
    rank: RankMemory
    engine: EngineMemory
    teachers: dict[str, EngineMemory]  # by name
    teacher_shapes: Mapping[str, ModelShapes]  # likewise
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


def make_plan(
    run: RunConfig,
    shapes: ModelShapes,
    machines: Sequence[Machine],
    teacher_shapes: Mapping[str, ModelShapes] = MappingProxyType({}),
) -> Plan:
    """`teacher_shapes`: of each teacher. Raises ConfigError for `plan.gpu`, and for an engine that no machine holds."""
    placed = layout(run, machines)
    learner_gpu = _gpu(run, placed, "learner", run.learner.gpus, machines)
    engine_gpu = _gpu(run, placed, "rollout", run.rollout.gpus, machines)
    rank, engine = rank_memory(run, shapes), engine_memory(run, shapes, engine_gpu)
    teacher_gpus = {
        name: _gpu(run, placed, teacher_kind(name), run.teachers[name].engine(run.rollout).gpus, machines)
        for name in teacher_shapes
    }
    teachers = {
        name: teacher_memory(run, run.teachers[name], model, teacher_gpus[name])
        for name, model in teacher_shapes.items()
    }
    hosts = [
        (node, host_memory(run, shapes, node, rank, engine, teachers, driver=index == 0))
        for index, node in enumerate(placed.nodes)
    ]
    ranks_on_node = max((node.count("learner") for node in placed.nodes), default=0)
    times = step_times(
        run,
        shapes,
        engine,
        learner_gpu=learner_gpu,
        engine_gpu=engine_gpu,
        ranks_on_node=ranks_on_node,
        one_node=sum(bool(node.actors or node.workers) for node in placed.nodes) == 1,
    )
    problems = [
        *too_few_gpus(placed),
        *rank_problems(rank, learner_gpu),
        *engine_problems(run, engine, engine_gpu),
        *(
            replace(problem, text=f"teacher {name}: {problem.text}")
            for name, memory in teachers.items()
            for problem in engine_problems(run, memory, teacher_gpus[name])
        ),
        *host_problems(hosts),
    ]
    return Plan(
        run=run,
        shapes=shapes,
        machines=machines,
        layout=placed,
        rank=rank,
        engine=engine,
        teachers=teachers,
        teacher_shapes=teacher_shapes,
        learner_gpu=learner_gpu,
        engine_gpu=engine_gpu,
        hosts=hosts,
        synced_bytes=synced_bytes(run, shapes),
        times=times,
        problems=problems,
    )


def gpu_of(run: RunConfig) -> Gpu | None:
    """The kind of GPU that `plan.gpu` names. Raises ConfigError."""
    try:
        return gpu_named(run.plan.gpu) if run.plan.gpu else None
    except ConfigError as error:
        raise ConfigError(f"plan.gpu: {error}") from None


def _gpu(run: RunConfig, placed: Layout, kind: str, gpus: int, machines: Sequence[Machine]) -> Gpu | None:
    """The smallest kind of GPU under the actors of a kind; `plan.gpu` where machines do not say. `gpus`: of each."""
    if not gpus:
        return None
    used = [node.machine.gpu for node in placed.nodes if node.count(kind)] or [m.gpu for m in machines if m.gpus]
    known = [gpu for gpu in used if gpu is not None]
    if known:
        return min(known, key=lambda gpu: gpu.memory)
    return gpu_of(run)
