"""Starts a run's episode workers: actors near the engines, or an object in the driver's process."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count, pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import ray
from ray._private.state import state
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlframe.actors.in_process import InProcess
from rlframe.actors.replicas import Handle, Replica
from rlframe.actors.table import node_id
from rlframe.cluster.actor import CONCURRENT_CALLS, node_of, start_actor, wait_for
from rlframe.cluster.placement import ENGINE, Slot, visible_gpus
from rlframe.cluster.reward_actors import RewardActors, reward_pool
from rlframe.cluster.teachers import teacher_pool
from rlframe.rollout.episode_pool import HEARTBEAT_S, EpisodePool
from rlframe.rollout.episodes import EpisodeWorker
from rlframe.rollout.messages import EngineSeat

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig

ENGINES_OF_A_WORKER = 8  # by default, at most
# Seconds between the first news of an actor and its report, with max_staleness of 1 or more. A report then tells
# several groups, which saves a third of the driver's CPU. With max_staleness 0 each step would take longer.
REST_S = 0.05
# A worker without a report is lost after the longest call of a reward and FOUND_S, and after LONGEST_SILENCE_S at most,
# since rewards run in processes of their own.
FOUND_S, LONGEST_SILENCE_S = 5.0, 20.0


def episode_pool(
    run: RunConfig,
    engines: list[Replica],
    rewards: list[RewardActors],
    handles: dict[str, Handle],
    deadline: float,
    warn: Callable[[str], None],
    teachers: Mapping[str, Mapping[str, Handle]] = MappingProxyType({}),
) -> EpisodePool:
    """Starts the episode workers over engines, reward workers and teachers that have started.

    `warn`: lines for the console. `teachers`: the engines of each.
    """
    seats = [EngineSeat(name=each.name, handle=each.handle, slots=run.rollout.slots) for each in engines]
    wanted = run.rollout.episode_workers
    if wanted is None and run.cluster.address is None:
        wanted = 0
    if wanted == 0:
        make_rewards = partial(reward_pool, run.reward, rewards)
        worker = EpisodeWorker("episodes-0", seats, make_rewards, **_settings(run, teachers))
        pool = EpisodePool({worker.name: (InProcess(worker), seats)}, ahead=run.rollout.ahead)
    else:
        calls = {each.name: each.handle.__ray_call__.remote(node_id) for each in engines}
        nodes = wait_for(calls, "tell its node", deadline)
        shares = share_engines(nodes, wanted)
        actors = EpisodeActors(run, rewards, handles, members=len(shares), teachers=teachers)
        workers = {}
        for share in shares:
            taken = [seats[engine] for engine in share]
            name = actors.start(taken, nodes[share[0]])
            workers[name] = handles[name], taken
        wait_for({name: handle.__ray_ready__.remote() for name, (handle, _) in workers.items()}, "start", deadline)
        silence_s = min(run.reward.timeout_s + FOUND_S, LONGEST_SILENCE_S) - HEARTBEAT_S
        start_s = run.cluster.start_timeout_s
        pool = EpisodePool(workers, ahead=run.rollout.ahead, silence_s=silence_s, start_s=start_s)
        pool.start_worker = actors.start_successor
    pool.warn = warn
    return pool


class EpisodeActors:
    """Starts episode workers as actors, each with a name of its own: "episodes-0", "episodes-1", ..."""

    def __init__(
        self,
        run: RunConfig,
        rewards: list[RewardActors],
        handles: dict[str, Handle],
        *,
        members: int,
        teachers: Mapping[str, Mapping[str, Handle]] = MappingProxyType({}),
    ) -> None:
        """`handles` gets each actor. `members`: workers that share the rewards and teachers."""
        self.run = run
        self.rewards = rewards
        self.handles = handles
        self.members = members
        self.teachers = teachers
        self._indices = count()  # of workers; threads replace several at the same time
        self._homes: dict[str, str] = {}  # name of a worker -> the node that it shall share with its engines

    def start(self, seats: list[EngineSeat], node: str | None) -> str:
        """Starts a worker near its engines -> its name. `node` None: on any node with `rollout.labels`."""
        index = next(self._indices)
        labels = {} if node is not None else self.run.rollout.labels or {}
        slot = Slot(kind="episodes", index=index, cpus=0, gpus=0, environment=visible_gpus(0), labels=labels)
        make_rewards = partial(reward_pool, self.run.reward, self.rewards, index % self.members, self.members)
        options: dict[str, Any] = {"max_concurrency": CONCURRENT_CALLS}
        if node is not None:  # soft affinity is for Ray a wish: half of such actors are on another node
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=False)
        settings = _settings(self.run, self.teachers, index % self.members, self.members)
        settings |= {"rest_s": REST_S if self.run.max_staleness else 0.0}
        start_actor(slot, EpisodeWorker, (seats, make_rewards), self.handles, settings, **options)
        self._homes[slot.name] = node or ""
        return slot.name

    def start_successor(self, lost: str) -> tuple[str, Handle]:
        """Ends a worker, and makes another, which has no engine yet, on a node of engines.

        Returns the name and handle of the other, which still starts.
        """
        ray.kill(self.handles.pop(lost))
        home = self._home_of_successor(self._homes.pop(lost))
        name = self.start([], home or None)
        self._homes[name] = home
        return name, self.handles[name]

    def _home_of_successor(self, home: str) -> str:
        """The node of the worker before, if an engine is there; else the node of an engine that has fewest workers."""
        draining = state.get_draining_nodes()
        engines = [handle for name, handle in list(self.handles.items()) if name.startswith(f"{ENGINE}-")]
        near = {node for handle in engines for node in node_of(handle)} - draining.keys()
        if home in near or not near:
            return "" if home in draining else home
        workers = Counter(self._homes.values())
        return min(sorted(near), key=workers.__getitem__)


def _settings(
    run: RunConfig, teachers: Mapping[str, Mapping[str, Handle]], member: int = 0, members: int = 1
) -> dict[str, Any]:
    """Arguments of an episode worker, of which there are `members`."""
    bounds = run.rollout.bounds(run.cluster.stall_timeout_s)
    make_teachers = partial(teacher_pool, run, teachers, member, members) if teachers else None
    return {"ahead": run.rollout.ahead, "put": ray.put, "bounds": bounds, "make_teachers": make_teachers}


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


def _equal_parts(indices: list[int], parts: int) -> list[list[int]]:
    bounds = [len(indices) * part // parts for part in range(parts + 1)]
    return [indices[start:end] for start, end in pairwise(bounds)]
