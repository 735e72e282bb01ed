"""Placement: a run's config -> a slot for each actor. Pure: a planner can compute a run's demand before any start.

Settings of a role, and the resulting slots:

    engines=2, cpus=4, gpus=1     rollout-0, rollout-1: 4 CPUs and 1 GPU each, on any machine
    engines=1, gpus=16            rollout-0 on machines of 8 GPUs: no GPU, but it starts 16 workers with 1 GPU each
    ranks=2, cpus=1, gpus=1       learner-0, learner-1: 1 CPU and 1 GPU each, reserved together (gang "learner")
    placement=colocated           rollout-0 is in the ranks' gang: on the machine of its ranks, no GPU of its own
    workers=2, cpus=0.5           reward-0, reward-1: half a CPU each; hold all rewards without own actors
    terms.judge.actors.count=1    reward-judge-0: holds the reward `judge`
    teachers.big.engines=1        teacher-big-0: an engine that holds the teacher `big`
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from rlframe.cluster.cpu import KEEP_MEMORY
from rlframe.config.keys import RunKeys
from rlframe.errors import ConfigError

if TYPE_CHECKING:
    from rlframe.config.keys import SharedKeys
    from rlframe.learner.config import LearnerConfig
    from rlframe.reward.base import Reward
    from rlframe.reward.config import RewardConfig
    from rlframe.rollout.config import RolloutConfig

Role: TypeAlias = Literal["rollout", "reward", "learner", "teacher"]
ENGINE = "rollout"  # kind of the slots of engines
LEARNER = "learner"  # the gang of all ranks, and of the engines on their GPUs
# torch rounds every block of pinned memory up to a power of two: up to twice the host memory of a sleeping rank.
EXACT_PINNED = {"PYTORCH_ALLOC_CONF": "pinned_max_round_threshold_mb:1"}
RL: tuple[Role, ...] = ("rollout", "reward", "learner", "teacher")  # the roles of reinforcement learning


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """An actor's name, share of a machine, and process environment."""

    kind: str  # "rollout", "learner", "reward", "reward-judge", "teacher-big": actors of a kind are replicas or ranks
    index: int  # among the actors of the kind
    cpus: float
    gpus: float
    environment: dict[str, str] = field(default_factory=dict)
    pip: list[str] = field(default_factory=list)  # packages that the actor's process has beside the cluster's
    labels: dict[str, str] = field(default_factory=dict)  # of a node that may run the actor; Ray's label selector
    resources: dict[str, float] = field(default_factory=dict)  # amounts of Ray's custom resources
    spread: bool = False  # over as many nodes as there are
    gang: str | None = None  # slots of a gang are reserved together: all or none
    bundle: int = 0  # part of the gang's reservation; slots with the same bundle are on the same machine
    workers: int = 0  # further actors with 1 GPU each, on any machines, that the actor starts: vLLM's Ray executor

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.index}"


def placement(run: SharedKeys, roles: Iterable[Role] = RL, node_gpus: float = math.inf) -> dict[Role, list[Slot]]:
    """Role -> slots of the role's actors, in the order of the start. `node_gpus`: see `engine_slot`."""
    ranks = [rank_slot(run.learner, index) for index in range(run.learner.ranks)]
    if not isinstance(run, RunKeys):
        return {"learner": ranks}
    largest = math.inf if run.placement == "colocated" else node_gpus
    slots: dict[Role, list[Slot]] = {
        "rollout": [engine_slot(run.rollout, index, largest) for index in range(run.rollout.engines.min)],
        "learner": ranks,
        "reward": reward_slots(run.reward),
    }
    if run.teachers:
        slots["teacher"] = [
            engine_slot(teacher.engine(run.rollout), index, node_gpus, teacher_kind(name))
            for name, teacher in run.teachers.items()
            for index in range(teacher.engines)
        ]
    chosen = set(roles)
    if run.placement == "colocated" and run.rollout.gpus and {"rollout", "learner"} <= chosen:
        slots |= on_the_same_gpus(slots["rollout"], slots["learner"])
    return {role: role_slots for role, role_slots in slots.items() if role in chosen}


def on_the_same_gpus(engines: list[Slot], ranks: list[Slot]) -> dict[Role, list[Slot]]:
    """Slots of engines that use the GPUs of ranks by turns. Ranks reserve the GPUs, since a GPU is reserved once.

    2 engines on 2 GPUs each, 4 ranks: learner-0, learner-1 and rollout-0 are on one machine (bundle 0), learner-2,
    learner-3 and rollout-1 on one machine (bundle 1).
    """
    ranks_of_engine = len(ranks) // len(engines)
    return {
        "rollout": [replace(slot, gpus=0, gang=LEARNER, bundle=slot.index) for slot in engines],
        "learner": [
            replace(slot, bundle=slot.index // ranks_of_engine, environment=slot.environment | EXACT_PINNED)
            for slot in ranks
        ],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Part of a gang's reservation, on one node: the sum of the needs of the slots in the bundle."""

    resources: dict[str, float]
    labels: dict[str, str]


def bundles(slots: Iterable[Slot]) -> list[Bundle]:
    """The bundles of a gang's slots by index, then a bundle for each worker that an actor starts.

    Two ranks with 2 CPUs and 1 GPU each, and an engine with 3 CPUs on their GPUs: resources {"CPU": 7, "GPU": 2}.
    An engine with 3 CPUs and 2 workers: {"CPU": 3, "GPU": 1} for the actor and a worker, {"GPU": 1} for a worker.
    """
    members: dict[int, list[Slot]] = {}
    for slot in slots:
        members.setdefault(slot.bundle, []).append(slot)
    workers = [
        Bundle(resources={"GPU": 1.0}, labels=slot.labels)
        for index in sorted(members)
        for slot in members[index]
        for _ in range(1, slot.workers)
    ]
    return [_bundle(members[index]) for index in sorted(members)] + workers


def _bundle(slots: list[Slot]) -> Bundle:
    cpus, gpus = math.fsum(slot.cpus for slot in slots), math.fsum(slot.gpus + min(1, slot.workers) for slot in slots)
    labels = {label: value for slot in slots for label, value in slot.labels.items()}
    custom = {name for slot in slots for name in slot.resources}
    amounts = {name: math.fsum(slot.resources.get(name, 0) for slot in slots) for name in sorted(custom)}
    return Bundle(resources={"CPU": cpus} | ({"GPU": gpus} if gpus else {}) | amounts, labels=labels)


def cpu_demand(run: SharedKeys, roles: Iterable[Role] = RL) -> int:
    """CPUs that a local cluster offers: as many as all slots ask for together, engines to come included, rounded up."""
    slots = placement(run, roles)
    asked = [slot.cpus for role_slots in slots.values() for slot in role_slots]
    if isinstance(run, RunKeys) and "rollout" in slots:
        asked += [run.rollout.cpus] * (run.rollout.engines.max - run.rollout.engines.min)
    return math.ceil(math.fsum(asked))


def teacher_kind(name: str) -> str:
    """The kind of the slots of a teacher's engines."""
    return f"teacher-{name}"


def engine_slot(config: RolloutConfig, index: int, node_gpus: float, kind: str = ENGINE) -> Slot:
    """The slot of an engine. An engine with more GPUs than the largest node (`node_gpus`) spans nodes.

    Raises ConfigError for a data-parallel engine that would have to span nodes.
    """
    spans = config.executor == "ray" or (config.executor == "auto" and config.gpus > node_gpus > 0)
    if spans and config.data_parallel > 1:
        raise ConfigError(
            f"rollout.data_parallel: an engine of {config.gpus} GPUs spans machines with {node_gpus:g}, by "
            f"rollout.tensor_parallel and pipeline_parallel only; use 1, and rollout.engines for more copies"
        )
    threads = config.cpus if config.gpus else config.cpus // config.workers  # on a CPU, of each worker process
    slot = Slot(
        kind=kind,
        index=index,
        cpus=config.cpus,
        gpus=config.gpus,
        environment=environment(threads, gpus=config.gpus),
        labels=config.labels,
        resources=config.resources,
        spread=config.strategy == "spread",
    )
    return replace(slot, gpus=0, workers=config.workers, gang=slot.name) if spans else slot


def rank_slot(config: LearnerConfig, index: int) -> Slot:
    settings = environment(config.cpus, gpus=config.gpus) | ({} if config.gpus else {"DS_ACCELERATOR": "cpu"})
    return Slot(
        kind="learner",
        index=index,
        cpus=config.cpus,
        gpus=config.gpus,
        environment=settings,
        labels=config.labels,
        resources=config.resources,
        gang=LEARNER,
        bundle=index,
    )


def reward_slots(config: RewardConfig) -> list[Slot]:
    slots = []
    for kind, terms in reward_kinds(config).items():
        actors = next(iter(terms.values())).actors
        shared = (config.workers, config.cpus, 0, [])
        count, cpus, gpus, pip = shared if actors is None else (actors.count, actors.cpus, actors.gpus, actors.pip)
        labels = config.labels if actors is None or actors.labels is None else actors.labels
        slots += [
            Slot(
                kind=kind,
                index=index,
                cpus=cpus,
                gpus=gpus,
                environment=visible_gpus(gpus),
                labels=labels,
                pip=pip,
                resources=config.resources,
            )
            for index in range(count)
        ]
    return slots


def reward_kinds(config: RewardConfig) -> dict[str, dict[str, Reward]]:
    """Kind of worker -> the rewards that each worker of this kind holds: shared workers, then rewards' own actors."""
    shared = {name: term for name, term in config.terms.items() if term.actors is None}
    apart = {f"reward-{name}": {name: term} for name, term in config.terms.items() if term.actors is not None}
    return ({"reward": shared} if shared else {}) | apart


def environment(threads: int, *, gpus: int) -> dict[str, str]:
    """Environment variables of an engine's or a rank's process."""
    machine = visible_gpus(gpus) | ({} if gpus else KEEP_MEMORY)
    return machine | {
        "OMP_NUM_THREADS": str(max(1, threads)),
        "HF_HUB_OFFLINE": "1",  # the driver downloads; an actor reads a folder
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
    }


def visible_gpus(gpus: float) -> dict[str, str]:
    """Environment variables that hide all GPUs from an actor with gpus=0, to which Ray would show every GPU."""
    return {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}


def meet_labels(labels: Mapping[str, str], selectors: Mapping[str, str]) -> bool:
    """True if a node's labels meet all of a slot's selectors."""
    return all(meets(labels.get(name), selector) for name, selector in selectors.items())


def meets(value: str | None, selector: str) -> bool:
    """True if a label's value on a node meets Ray's selector. `value` is None on a node without the label.

    The value a meets the selectors a, !b and in(a, b).
    """
    listed = selector.removeprefix("!")
    values = [item.strip() for item in listed.removeprefix("in(").removesuffix(")").split(",")]
    return (value in values) != selector.startswith("!")
