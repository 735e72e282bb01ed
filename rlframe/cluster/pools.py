"""Makes the typed handles of a run's roles from actors: the reward pool and the learner's group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlframe.actors.replicas import Handle, Replica, Replicas
from rlframe.cluster.actor import start_actor
from rlframe.cluster.placement import Slot, reward_kinds
from rlframe.learner.group import LearnerGroup
from rlframe.objective import Objective
from rlframe.reward.pool import RewardPool, RewardWorkers
from rlframe.reward.worker import RewardWorker

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig
    from rlframe.reward.config import RewardConfig
    from rlframe.training import Packing

REWARDS_IN_FLIGHT = 64  # calls that wait or run at a reward worker
CONCURRENT_CALLS = 1000  # run on one event loop of a worker; this only lifts Ray's bound


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
