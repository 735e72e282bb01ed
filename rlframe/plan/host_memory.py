"""Memory of a node's host: the processes of its actors, and Ray's object store in /dev/shm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from rlframe.cluster.placement import teacher_kind
from rlframe.model.precision import WIDTHS
from rlframe.plan.engine_memory import EngineMemory
from rlframe.plan.layout import Node
from rlframe.plan.learner_memory import RankMemory
from rlframe.plan.numbers import GIB
from rlframe.plan.shapes import ModelShapes
from rlframe.plan.shards import rank_shards

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig

# Assumptions: memory of a process with its libraries and nothing else, in bytes.
RANK, ENGINE, REWARD, DRIVER = (int(gib * GIB) for gib in (1.2, 1.5, 0.6, 2.5))  # the driver with Ray's own processes
GPU_PROCESS = 3 * GIB  # more for a process with CUDA's libraries
TRAJECTORIES = GIB  # in the object store
# Versions of the weights in the object store at once: in lockstep, and with max_staleness. A test compares with
# `cluster/store.py` and `weights/object_store.py`.
LOCKSTEP_VERSIONS, VERSIONS = 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """Bytes of a node, without pages of files."""

    least: int  # state and weights alone
    kept: int  # by processes with their libraries, for the whole run
    peak: int  # while ranks copy a checkpoint, and on CPUs at the worst instants
    shm: int  # of the object store, in /dev/shm


def host_memory(
    run: RunConfig,
    shapes: ModelShapes,
    node: Node,
    rank: RankMemory,
    engine: EngineMemory,
    teachers: Mapping[str, EngineMemory] = MappingProxyType({}),
    *,
    driver: bool,
) -> HostMemory:
    """`driver`: the node has the driver."""
    ranks, engines = node.count("learner"), node.count("rollout")
    of_teachers = {name: node.count(teacher_kind(name)) for name in teachers}
    rewards = len(node.actors) - ranks - engines - sum(of_teachers.values())
    base = ranks * (RANK + (GPU_PROCESS if rank.on_gpu else 0)) + rewards * REWARD + (DRIVER if driver else 0)
    workers = run.rollout.workers
    # An engine over several nodes has its workers there, and its own process on one of them.
    on_node = node.workers + workers * sum(slot.kind == "rollout" and not slot.workers for slot in node.actors)
    base += engines * ENGINE + (on_node * (ENGINE + GPU_PROCESS) if engine.on_gpu else 0)
    kept, peak = base + ranks * sum(rank.host.values()), base + ranks * rank.host_bytes
    if not rank.on_gpu:
        kept += ranks * rank.kept_bytes
    if not engine.on_gpu:
        kept += engines * workers * (engine.kept_bytes + engine.cache)
        peak += engines * workers * engine.peak_bytes
    least = ranks * (sum(rank.host.values()) + (0 if rank.on_gpu else rank.kept_bytes))
    least += 0 if engine.on_gpu else engines * workers * engine.kept_bytes
    for name, memory in teachers.items():
        processes = of_teachers[name] * run.teachers[name].engine(run.rollout).workers
        base_bytes = processes * (ENGINE + (GPU_PROCESS if memory.on_gpu else 0))
        kept += base_bytes + (0 if memory.on_gpu else processes * (memory.kept_bytes + memory.cache))
        peak += base_bytes + (0 if memory.on_gpu else processes * memory.peak_bytes)
        least += 0 if memory.on_gpu else processes * memory.kept_bytes
    shm = store_bytes(run, shapes, ranks=ranks, engines=engines)
    return HostMemory(least=least, kept=kept, peak=peak, shm=shm)


def synced_bytes(run: RunConfig, shapes: ModelShapes) -> int:
    """Bytes of the weights that a sync brings to an engine; with adapters alone those of the adapters."""
    width = WIDTHS[run.learner.dtype]
    if run.weights.adapters == "alone" and run.learner.lora:
        return width * rank_shards(shapes, run.learner).adapters
    return width * shapes.parameters


def store_bytes(run: RunConfig, shapes: ModelShapes, *, ranks: int, engines: int) -> int:
    """Bytes of the object store on a node with these actors.

    A node with engines fetches whole versions, a node with ranks alone has the ranks' parts.
    """
    if run.weights.backend != "object_store" or not (ranks or engines):
        return TRAJECTORIES
    versions = VERSIONS if run.max_staleness else LOCKSTEP_VERSIONS
    whole = synced_bytes(run, shapes)
    return TRAJECTORIES + versions * (whole if engines else whole * ranks // run.learner.ranks)
