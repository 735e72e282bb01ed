"""Starts a run's episode workers: actors near the engines, or an object in the driver's process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlframe.actors.in_process import InProcess
from rlframe.actors.replicas import Handle, Replica
from rlframe.cluster.actor import start_actor, wait_for
from rlframe.cluster.placement import Slot, visible_gpus
from rlframe.cluster.pools import CONCURRENT_CALLS, RewardActors, reward_pool
from rlframe.rollout.episode_pool import EpisodePool
from rlframe.rollout.episodes import EpisodeWorker
from rlframe.rollout.messages import EngineSeat

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig

ENGINES_OF_A_WORKER = 8  # by default, at most
# Seconds between the first news of an actor and its report, with max_staleness of 1 or more. A report then tells
# several groups, which saves a third of the driver's CPU. With max_staleness 0 each step would take longer.
REST_S = 0.05


def episode_pool(
    run: RunConfig, engines: list[Replica], rewards: list[RewardActors], handles: dict[str, Handle], deadline: float
) -> EpisodePool:
    """Starts the episode workers over engines and reward workers that have started."""
    seats = [EngineSeat(name=each.name, handle=each.handle, slots=run.rollout.slots) for each in engines]
    count = run.rollout.episode_workers
    if count is None and run.cluster.address is None:
        count = 0
    bounds = run.rollout.bounds(run.cluster.stall_timeout_s)
    settings: dict[str, Any] = {"ahead": run.rollout.ahead, "put": ray.put, "bounds": bounds}
    if count == 0:
        worker = EpisodeWorker("episodes-0", seats, partial(reward_pool, run.reward, rewards), **settings)
        return EpisodePool({"episodes-0": (InProcess(worker), seats)}, ahead=run.rollout.ahead)
    settings["rest_s"] = REST_S if run.max_staleness else 0.0
    calls = {each.name: each.handle.__ray_call__.remote(_node_id) for each in engines}
    nodes = wait_for(calls, "tell its node", deadline)
    shares = share_engines(nodes, count)
    workers = {}
    for index, share in enumerate(shares):
        slot = Slot(kind="episodes", index=index, cpus=0, gpus=0, environment=visible_gpus(0))
        taken = [seats[engine] for engine in share]
        make_rewards = partial(reward_pool, run.reward, rewards, index, len(shares))
        near = NodeAffinitySchedulingStrategy(nodes[share[0]], soft=True)
        options = {"scheduling_strategy": near, "max_concurrency": CONCURRENT_CALLS}
        handle = start_actor(slot, EpisodeWorker, (taken, make_rewards), handles, settings, **options)
        workers[slot.name] = handle, taken
    wait_for({name: handle.__ray_ready__.remote() for name, (handle, _) in workers.items()}, "start", deadline)
    return EpisodePool(workers, ahead=run.rollout.ahead)


def share_engines(nodes: Sequence[str], workers: int | None) -> list[list[int]]:
    """[episode workers][engines] the indices of each worker's engines. `nodes`: the node of each engine. Pure.

    `workers` None: a worker for every 8 engines of a node, so that a worker and its engines share a node. A number:
    that many workers, with nearly the same number of engines each, in the order of nodes:

    >>> share_engines(["a", "b", "a", "b", "a"], None)
    [[0, 2, 4], [1, 3]]
    >>> share_engines(["a", "b", "a", "b", "a"], 3)
    [[0], [2, 4], [1, 3]]
    """
    by_node = {node: [index for index in range(len(nodes)) if nodes[index] == node] for node in dict.fromkeys(nodes)}
    if workers is not None:
        return _equal_parts([index for indices in by_node.values() for index in indices], workers)
    return [
        part
        for indices in by_node.values()
        for part in _equal_parts(indices, math.ceil(len(indices) / ENGINES_OF_A_WORKER))
    ]


def _equal_parts(indices: list[int], count: int) -> list[list[int]]:
    bounds = [len(indices) * part // count for part in range(count + 1)]
    return [indices[start:end] for start, end in pairwise(bounds)]


def _node_id(_: Any) -> str:
    """The node of the calling actor."""
    return ray.get_runtime_context().get_node_id()
