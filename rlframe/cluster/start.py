"""Starts a run's actors: all at the start, and an engine at any later time, by the same functions."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rlframe.actors.calls import numbered, wait
from rlframe.actors.failure import ActorFailed, describe
from rlframe.actors.replicas import Handle, Replica, Replicas, ReplicaState
from rlframe.cluster import ray_cluster
from rlframe.cluster.placement import RL, Role, Slot, cpu_demand, engine_slot, placement, reward_kinds
from rlframe.errors import RunFailed, Stalled
from rlframe.learner import selftest
from rlframe.learner.group import LearnerGroup
from rlframe.learner.meeting import free_address
from rlframe.learner.rank import LearnerRank
from rlframe.objective import Objective
from rlframe.reward.pool import RewardPool, RewardWorkers
from rlframe.reward.worker import RewardWorker
from rlframe.rollout.pool import RolloutPool
from rlframe.weights.sync import WeightSync
from rlframe.weights.transport import Broadcast, ObjectStore

if TYPE_CHECKING:
    from ray import ObjectRef

    from rlframe.config.run import RunConfig
    from rlframe.reward.config import RewardConfig
    from rlframe.training import Packing

MIB = 1 << 20
REWARDS_IN_FLIGHT = 64  # calls that wait or run at a reward worker
# Calls of an engine or a reward worker run on one event loop; this only lifts Ray's bound.
CONCURRENT_CALLS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Actors:
    """A run's roles behind typed handles. A role that the run did not ask for is None."""

    starter: Starter
    rollouts: RolloutPool | None
    rewards: RewardPool | None
    learner: LearnerGroup | None
    weights: WeightSync | None  # of a run with engines and a learner

    def add_engine(self) -> Replica:
        """Starts a further engine, which serves with the current weights once this returns. For any thread.

        An engine that received wrong weights is quarantined until the next sync. Raises Stalled where the engine does
        not start within `cluster.start_timeout_s`, perhaps for lack of resources, and RunFailed where this run's
        engines cannot be joined.
        """
        if self.rollouts is None:
            raise RunFailed("this run has no engines, so none can be added: the role rollout was not started")
        replica = self.starter.start_late_engine()
        self.rollouts.replicas.join(replica)
        try:
            self.weights.bring(replica) if self.weights else self.rollouts.replicas.serve(replica)
        except BaseException:
            self.rollouts.replicas.drain(replica.name)
            ray.kill(replica.handle)
            raise
        return replica


@contextmanager
def start(run: RunConfig, model_path: Path, roles: Iterable[Role] = RL) -> Iterator[Actors]:
    """Joins or makes the Ray cluster and starts the actors of `roles`; at the end, ends all actors.

    Raises ConfigError for a model that the learner cannot compute right, Stalled with the names of the actors that did
    not start within `cluster.start_timeout_s` and the cluster's resources, and ActorFailed where a call inside the
    context ends with a Ray error.
    """
    namespace = f"rlframe-{uuid.uuid4().hex[:8]}"
    slots = placement(run, roles)
    packing = selftest.choose_packing(model_path, run.learner, run.longest_sequence) if slots.get("learner") else None
    ray_cluster.connect(run.cluster, namespace=namespace, cpus=cpu_demand(slots))
    starter = Starter(run, model_path, namespace, packing or "shared")
    try:
        yield starter.start(slots)
    except RayError as error:
        raise ActorFailed(describe(error)) from None
    finally:
        ray_cluster.end(starter.handles)


class Starter:
    """Starts a run's actors, and keeps all handles until the end of the run."""

    def __init__(self, run: RunConfig, model_path: Path, namespace: str, packing: Packing) -> None:
        """`packing`: of the learner's micro-batches."""
        self.run = run
        self.packing: Packing = packing
        self.model_path = model_path
        self.namespace = namespace
        self.handles: dict[str, Handle] = {}  # name -> actor

    def start(self, slots: dict[Role, list[Slot]]) -> Actors:
        """Starts every actor of `slots`."""
        run, deadline = self.run, self._deadline()
        engines = [self._start_engine(slot) for slot in slots.get("rollout", [])]
        ranks = self._start_ranks(slots.get("learner", []))
        workers = start_workers(run.reward, slots.get("reward", []), self.handles)
        _wait({name: handle.__ray_ready__.remote() for name, handle in self.handles.items()}, "start", deadline)
        _wait(self._connect_ranks(ranks) | self._connect_engines(engines), "load the model", deadline)
        if run.kl is not None:
            calls = [rank.keep_reference.remote(run.kl.offload) for rank in ranks]
            _wait(numbered("learner", calls), "copy the reference", deadline)
        if engines and ranks:
            self._connect_weights(engines, ranks, deadline)
        self._stamp(engines, deadline)
        for engine in engines:
            engine.state = ReplicaState.SERVING
        timeout_s = run.cluster.stall_timeout_s
        rollouts = RolloutPool(Replicas("engine", engines), timeout_s=timeout_s) if engines else None
        rewards = reward_pool(run.reward, workers) if workers else None
        learner = learner_group(run, ranks, self.packing) if ranks else None
        weights = None
        if rollouts and learner:
            transport = ObjectStore if run.weights.backend == "object_store" else Broadcast
            weights = WeightSync(transport(learner, rollouts), rollouts)
        return Actors(starter=self, rollouts=rollouts, rewards=rewards, learner=learner, weights=weights)

    def start_late_engine(self) -> Replica:
        """Starts an engine with the weights of version 0. Raises Stalled and RunFailed."""
        if self.run.weights.backend != "object_store":
            raise RunFailed(
                f"weights.backend={self.run.weights.backend}: engines and ranks meet once, at the start; "
                "only with object_store an engine can be added later"
            )
        deadline = self._deadline()
        index = sum(name.startswith("rollout-") for name in self.handles)
        engine = self._start_engine(engine_slot(self.run.rollout, index))
        try:
            _wait({engine.name: engine.handle.__ray_ready__.remote()}, "start", deadline)
            _wait(self._connect_engines([engine]), "load the model", deadline)
            self._stamp([engine], deadline)
        except BaseException:
            ray.kill(engine.handle)
            raise
        return engine

    def _start_engine(self, slot: Slot) -> Replica:
        from rlframe.rollout.vllm import VLLMEngine

        run = self.run
        max_model_len, backend, head_dtype = run.max_model_len, run.weights.backend, run.learner.head_dtype
        arguments = (run.rollout, self.model_path, max_model_len, backend, head_dtype)
        handle = start_actor(slot, VLLMEngine, arguments, self.handles, max_concurrency=CONCURRENT_CALLS)
        return Replica(name=slot.name, handle=handle, state=ReplicaState.STARTING)

    def _start_ranks(self, slots: list[Slot]) -> list[Handle]:
        """Starts the ranks in slots that are reserved together: a part of the ranks would only wait for the rest."""
        if not slots:
            return []
        bundles = [{"CPU": slot.cpus} | ({"GPU": slot.gpus} if slot.gpus else {}) for slot in slots]
        gang = placement_group(bundles, strategy="PACK")
        arguments = (self.run.learner, self.model_path, self.run.rollout.temperature, self.run.steps, self.packing)
        return [
            start_actor(
                slot,
                LearnerRank,
                arguments,
                self.handles,
                scheduling_strategy=PlacementGroupSchedulingStrategy(gang, placement_group_bundle_index=slot.index),
            )
            for slot in slots
        ]

    def _connect_ranks(self, ranks: list[Handle]) -> dict[str, ObjectRef]:
        if not ranks:
            return {}
        address, timeout_s = meeting_point(ranks[0]), self.run.cluster.stall_timeout_s
        return numbered("learner", [rank.connect.remote(address, index, timeout_s) for index, rank in enumerate(ranks)])

    def _connect_engines(self, engines: list[Replica]) -> dict[str, ObjectRef]:
        if self.run.weights.backend != "object_store":
            return {}
        address = ray.get_runtime_context().gcs_address
        return {engine.name: engine.handle.join_object_store.remote(address, self.namespace) for engine in engines}

    def _connect_weights(self, engines: list[Replica], ranks: list[Handle], deadline: float) -> None:
        """Prepares the way of the weights from ranks to engines."""
        settings = self.run.weights
        if settings.backend == "object_store":
            calls = [rank.prepare_publishing.remote(settings.chunk_mib * MIB, settings.full_every) for rank in ranks]
            doing = "prepare to publish weights"
        else:
            handles, address = [engine.handle for engine in engines], meeting_point(ranks[0])
            engine_workers = len(engines) * max(1, self.run.rollout.gpus)
            calls = [rank.join_engines.remote(settings.backend, handles, address, engine_workers) for rank in ranks]
            doing = f"join weights.backend={settings.backend}"
        _wait(numbered("learner", calls), doing, deadline)

    def _stamp(self, engines: list[Replica], deadline: float) -> None:
        calls = {engine.name: engine.handle.stamp.remote(0) for engine in engines}
        _wait(calls, "take version 0", deadline)

    def _deadline(self) -> float:
        return time.monotonic() + self.run.cluster.start_timeout_s


def start_actor(
    slot: Slot, cls: type, arguments: tuple[Any, ...], handles: dict[str, Handle], **options: Any
) -> Handle:
    """Makes an actor of a plain class, whose first argument is the actor's name, and adds the handle to `handles`."""
    environment: dict[str, Any] = {"env_vars": slot.environment} if slot.environment else {}
    if slot.pip:
        environment["pip"] = slot.pip
    if environment:
        options["runtime_env"] = environment
    remote_class = ray.remote(cls).options(name=slot.name, num_cpus=slot.cpus, num_gpus=slot.gpus, **options)
    handles[slot.name] = remote_class.remote(slot.name, *arguments)
    return handles[slot.name]


def start_workers(config: RewardConfig, slots: list[Slot], handles: dict[str, Handle]) -> list[RewardWorkers]:
    """Starts reward workers: for the rewards that share workers, and for each reward with its own actors."""
    workers = []
    for kind, terms in reward_kinds(config).items():
        # Ray restarts a dead worker any number of times. RewardWorkers repeats the interrupted calls, and Ray does not.
        options = {"max_restarts": -1, "max_task_retries": 0, "max_concurrency": CONCURRENT_CALLS}
        arguments = (terms, config.timeout_s)
        replicas = [
            Replica(name=slot.name, handle=start_actor(slot, RewardWorker, arguments, handles, **options))
            for slot in slots
            if slot.kind == kind
        ]
        if replicas:
            limits = {"max_in_flight": REWARDS_IN_FLIGHT, "max_deaths": config.attempts}
            workers.append(RewardWorkers(list(terms), Replicas("worker", replicas), **limits))
    return workers


def reward_pool(config: RewardConfig, workers: list[RewardWorkers]) -> RewardPool:
    return RewardPool(config.terms, workers, attempts=config.attempts, max_failed_share=config.max_failed_share)


def learner_group(run: RunConfig, ranks: list[Handle], packing: Packing) -> LearnerGroup:
    return LearnerGroup(
        ranks,
        objective(run),
        micro_batch_tokens=run.learner.micro_batch_tokens,
        packing=packing,
        sequence_parallel=run.learner.sequence_parallel,
        timeout_s=run.cluster.stall_timeout_s,
        max_skipped=run.learner.max_skipped,
    )


def objective(run: RunConfig) -> Objective:
    """The objective of the run's steps, without a correction that the mismatch gate may switch on later."""
    return Objective(
        algorithm=run.algorithm,
        kl=run.kl,
        corrections=run.initial_correction,
        entropy_bonus=run.learner.entropy_bonus,
    )


def meeting_point(actor: Handle) -> str:
    """host:port on the actor's machine, free a moment ago: the address at which torch.distributed lets ranks meet."""
    address: Any = ray.get(actor.__ray_call__.remote(lambda _: free_address(ray.util.get_node_ip_address())))
    return address


def _wait(calls: dict[str, ObjectRef], doing: str, deadline: float) -> None:
    """Waits for calls of the start. Raises Stalled with the cluster's resources."""
    try:
        wait(calls, doing, deadline - time.monotonic(), "cluster.start_timeout_s")
    except Stalled as error:
        total, free = _resources(ray.cluster_resources()), _resources(ray.available_resources())
        raise Stalled(f"{error}; the cluster has {total}, free {free}") from None


def _resources(amounts: Mapping[str, float]) -> str:
    return ", ".join(f"{kind} {amounts.get(kind, 0):g}" for kind in ("CPU", "GPU"))
