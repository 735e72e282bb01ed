"""`Starter`: starts all actors of a run, and further engines later, by the same functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rlframe.actors.replicas import Replica, Replicas, ReplicaState
from rlframe.cluster.actor import wait_for
from rlframe.cluster.actors import Actors
from rlframe.cluster.engines import EngineActors
from rlframe.cluster.episodes import episode_pool
from rlframe.cluster.fleet import Fleet
from rlframe.cluster.gang import Gang, on_gpus_of
from rlframe.cluster.learner_group import learner_group
from rlframe.cluster.learner_starter import LearnerStarter
from rlframe.cluster.placement import LEARNER, Role, Slot
from rlframe.cluster.ranks import MIB
from rlframe.cluster.reward_actors import reward_pool, start_reward_actors
from rlframe.cluster.supervisor import Supervisor
from rlframe.cluster.teachers import start_teachers
from rlframe.learner.group import LearnerGroup
from rlframe.model import quantisation
from rlframe.rollout.episode_pool import EpisodePool
from rlframe.rollout.pool import RolloutPool
from rlframe.weights.broadcast import Broadcast
from rlframe.weights.object_store import ObjectStore
from rlframe.weights.sync import WeightSync
from rlframe.weights.transport import Transport
from rlframe.weights.turns import SeparateDevices, SharedDevices

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig
    from rlframe.rollout.episode_pool import EpisodePool
    from rlframe.training import Packing


class Starter(LearnerStarter):
    """Starts all actors of a run of reinforcement learning."""

    run: RunConfig

    def __init__(
        self, run: RunConfig, model_path: Path, namespace: str, packing: Packing, warn: Callable[[str], None]
    ) -> None:
        super().__init__(run, model_path, packing, warn)
        self.namespace = namespace
        self.engines = EngineActors(run, model_path, namespace, self.handles)
        self.episodes: EpisodePool | None = None

    def start(self, slots: dict[Role, list[Slot]]) -> Actors:
        """Starts every actor of `slots`."""
        run, deadline = self.run, self._deadline()
        # A learner dequantises the model, so the engines' own weights would differ from the policy's.
        self.engines.start_empty = "learner" in slots and quantisation.method(self.model_path) is not None
        if slots.get("learner") and run.weights.adapters == "alone":
            self.engines.lora = run.learner.lora
        rank_slots, engine_slots = slots.get("learner", []), slots.get("rollout", [])
        together = [slot for slot in rank_slots + engine_slots if slot.gang == LEARNER]
        gang = Gang(together, run.learner.strategy, run.learner.topology)
        engines = [self.engines.make(slot, gang) for slot in engine_slots if slot.gang != LEARNER]
        ranks = self._start_ranks(rank_slots, gang)
        rewards = start_reward_actors(run.reward, slots.get("reward", []), self.handles)
        teachers = start_teachers(run, slots.get("teacher", []), self.handles)
        # An actor's calls wait for its constructor only, so ranks load the model while engines still start.
        started = {name: handle.__ray_ready__.remote() for name, handle in self.handles.items()}
        wait_for(started | ranks.connect() | self.engines.connect(engines), "start", deadline)
        ranks.keep_reference(deadline)
        if sharing := [slot for slot in engine_slots if slot.gang == LEARNER]:
            engines = self._start_on_ranks_gpus(sharing, rank_slots, gang, deadline)
        if engines and rank_slots and run.weights.backend == "object_store":
            ranks.prepare_publishing(run.weights, self.engines.lora is not None, deadline)
        self.engines.stamp(engines, deadline)
        for engine in engines:
            engine.state = ReplicaState.SERVING
        timeout_s = run.cluster.stall_timeout_s
        replicas = Replicas("engine", engines)
        rollouts = RolloutPool(replicas, self.background, timeout_s=timeout_s) if engines else None
        learner = learner_group(run, ranks.actors, self.packing) if rank_slots else None
        episodes = None
        if rollouts and rewards:
            episodes = episode_pool(run, engines, rewards, self.handles, deadline, self.warn, teachers)
        if rollouts and episodes:
            rollouts.subscribe(episodes.announce)
        weights = None
        if rollouts and learner:
            weights = self._weight_sync(learner, rollouts)
            if self.engines.start_empty:
                weights.sync(learner.version)
        self.ranks, self.learner, self.episodes = ranks, learner, episodes
        fleet, supervisor = None, None
        if rollouts:
            fleet = Fleet(run, self.engines, rollouts, episodes, weights, self.background, self.warn)
            supervisor = Supervisor(run, fleet, self.handles)
            self.background.spawn(supervisor.run_forever())
        actors = Actors(
            starter=self,
            background=self.background,
            rollouts=rollouts,
            episodes=episodes,
            rewards=reward_pool(run.reward, rewards) if rewards and not engines else None,
            learner=learner,
            weights=weights,
            fleet=fleet,
            supervisor=supervisor,
        )
        if episodes and fleet:
            episodes.replace_engine = fleet.lose
        return actors

    def finish(self, timeout_s: float) -> None:
        """Waits until the episode workers have written all files. Raises RunFailed for a failed write, and Stalled."""
        if self.episodes is not None:
            self.background.run(self.episodes.close(timeout_s))

    def _start_on_ranks_gpus(
        self, slots: list[Slot], rank_slots: list[Slot], gang: Gang, deadline: float
    ) -> list[Replica]:
        """Starts engines on the GPUs of ranks. The engines have the first turn.

        Ranks move to the host's memory before, because an engine measures the free GPU memory at its start.
        """
        calls = {slot.name: self.handles[slot.name].sleep.remote(keep_parameters=False) for slot in rank_slots}
        wait_for(calls, "move its state to the host's memory", deadline)
        engines = []
        for slot in slots:
            ranks = [self.handles[rank.name] for rank in rank_slots if rank.bundle == slot.bundle]
            engines.append(self.engines.make(on_gpus_of(slot, ranks), gang))
        wait_for({engine.name: engine.handle.__ray_ready__.remote() for engine in engines}, "start", deadline)
        wait_for(self.engines.connect(engines), "load the model", deadline)
        return engines

    def _weight_sync(self, learner: LearnerGroup, rollouts: RolloutPool) -> WeightSync:
        run = self.run
        shared = run.placement == "colocated"
        beside_training = run.weights.backend == "object_store" and not shared
        return WeightSync(
            self._transport(learner, rollouts),
            rollouts,
            self.background,
            SharedDevices(learner, rollouts) if shared else SeparateDevices(),
            max_lag=run.max_staleness if beside_training else 0,
        )

    def _transport(self, learner: LearnerGroup, rollouts: RolloutPool) -> Transport:
        """The transport of weights from ranks to engines. For nccl and ipc, ranks and engines meet here."""
        settings = self.run.weights
        if settings.backend == "object_store":
            return ObjectStore(learner, rollouts, self.background)
        workers, chunk_bytes = self.run.rollout.workers, settings.chunk_mib * MIB
        transport = Broadcast(learner, rollouts, backend=settings.backend, workers=workers, chunk_bytes=chunk_bytes)
        transport.meet(list(rollouts.replicas))
        return transport
