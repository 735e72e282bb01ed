"""Starts a run's reward workers, and makes the pools by which episode workers ask them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlframe.actors.pings import PING_S
from rlframe.actors.replicas import Handle, Replica, Replicas
from rlframe.cluster.actor import CONCURRENT_CALLS, start_actor
from rlframe.cluster.placement import Slot, reward_kinds
from rlframe.reward.pool import RewardPool, RewardWorkers
from rlframe.reward.worker import RewardWorker

if TYPE_CHECKING:
    from rlframe.reward.config import RewardConfig

REWARDS_IN_FLIGHT = 64  # calls that wait or run at a reward worker, of all episode workers together
# Beyond reward.timeout_s. With the time between two pings, a worker that stopped is found 5 s after it at most.
SILENCE_S = 5.0 - PING_S


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardActors:
    """Reward workers that hold the same rewards."""

    rewards: list[str]  # names
    handles: dict[str, Handle]  # by the actor's name


def start_reward_actors(config: RewardConfig, slots: list[Slot], handles: dict[str, Handle]) -> list[RewardActors]:
    """Starts reward workers: for the rewards that share workers, and for each reward with its own actors."""
    kinds = []
    for kind, terms in reward_kinds(config).items():
        # Ray restarts a dead worker any number of times. RewardWorkers repeats the interrupted calls, and Ray does not.
        options: dict[str, Any] = {"max_restarts": -1, "max_task_retries": 0, "max_concurrency": CONCURRENT_CALLS}
        arguments = (terms, config.timeout_s)
        started = {
            slot.name: start_actor(slot, RewardWorker, arguments, handles, **options)
            for slot in slots
            if slot.kind == kind
        }
        if started:
            kinds.append(RewardActors(rewards=list(terms), handles=started))
    return kinds


def reward_pool(config: RewardConfig, kinds: list[RewardActors], member: int = 0, members: int = 1) -> RewardPool:
    """The reward pool of one of `members` episode workers, which share the reward workers.

    Each pool begins its search for an idle worker at another worker.
    """
    workers = []
    for kind in kinds:
        replicas = [Replica(name=name, handle=handle) for name, handle in kind.handles.items()]
        first = member * len(replicas) // members
        workers.append(
            RewardWorkers(
                kind.rewards,
                Replicas("worker", replicas[first:] + replicas[:first]),
                max_in_flight=max(1, REWARDS_IN_FLIGHT // members),
                max_deaths=config.attempts,
                silence_s=config.timeout_s + SILENCE_S,
            )
        )
    return RewardPool(config.terms, workers, attempts=config.attempts, max_failed_share=config.max_failed_share)
