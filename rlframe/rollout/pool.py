"""`RolloutPool`: spreads prompts over engines in other processes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal

import ray
from ray.exceptions import RayError

from rlframe.actors.calls import wait
from rlframe.actors.replicas import Replica, Replicas, ReplicaState
from rlframe.training import GroupRecord, Loaded
from rlframe.types import Prompt, SampledCompletion, Sampling, ScoredGroup

if TYPE_CHECKING:
    from rlframe.weights.snapshot import Snapshot

BOUND = "cluster.stall_timeout_s"
JOIN_POLL_S = 0.1  # between two looks whether an engine that is starting serves


class RolloutPool:
    """Typed handle over engine actors, which `cluster/` starts and ends."""

    def __init__(self, replicas: Replicas, *, timeout_s: float) -> None:
        """`timeout_s`: for an engine to pause, to load weights or to resume."""
        self.replicas = replicas
        self.timeout_s = timeout_s
        self.version = 0  # of the policy that serving engines sample with; set by WeightSync

    @property
    def outstanding(self) -> list[int]:
        """Unfinished completions of each engine."""
        return self.replicas.loads

    async def generate(self, prompts: list[Prompt], sampling: Sampling) -> AsyncIterator[SampledCompletion]:
        """Every prompt's completions, each as it ends. A group stays on one engine, which computes the prompt once.

        Raises the error of an engine, RayActorError when an engine died, and ReplicasDown.
        """
        while not (chosen := self.replicas.assign(sampling.completions, count=len(prompts))) and prompts:
            await asyncio.sleep(JOIN_POLL_S)
        shares: defaultdict[Replica, list[Prompt]] = defaultdict(list)
        for replica, prompt in zip(chosen, prompts, strict=True):
            shares[replica].append(prompt)
        arrivals: asyncio.Queue[SampledCompletion | BaseException] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._follow(replica, share, sampling, arrivals)) for replica, share in shares.items()
        ]
        try:
            for _ in range(len(prompts) * sampling.completions):
                arrival = await arrivals.get()
                if isinstance(arrival, BaseException):
                    raise arrival
                yield arrival
        finally:
            for task in tasks:
                task.cancel()

    def put(self, group: ScoredGroup) -> ray.ObjectRef:
        """The reference to a group in the object store."""
        return ray.put(group)

    def fetch(self, records: list[GroupRecord]) -> list[ScoredGroup]:
        """The groups that records refer to."""
        return ray.get([record.body for record in records])

    def load(self, snapshot: Snapshot, replicas: list[Replica]) -> dict[str, Loaded]:
        """Lets engines load a version, all at the same time -> the answer of each, by name. Raises Stalled."""
        calls = {replica.name: replica.handle.load.remote(snapshot) for replica in replicas}
        answers = wait(calls, f"load version {snapshot.version}", self.timeout_s, BOUND)
        return dict(zip(calls, answers, strict=True))

    def pause(self, replicas: list[Replica]) -> None:
        """Freezes the engines' requests. Raises Stalled."""
        wait({replica.name: replica.handle.pause.remote() for replica in replicas}, "pause", self.timeout_s, BOUND)

    def resume(self, replicas: list[Replica], version: int, fingerprints: dict[str, int]) -> dict[str, Loaded]:
        """Lets frozen requests go on with the weights that came since `pause`, as the policy's `version`.

        An engine whose weights differ from `fingerprints` (of the learner's tensors, by name) stays frozen. Raises
        Stalled.
        """
        calls = {replica.name: replica.handle.resume.remote(version, fingerprints) for replica in replicas}
        answers = wait(calls, f"resume as version {version}", self.timeout_s, BOUND)
        return dict(zip(calls, answers, strict=True))

    def sleep(self) -> None:
        """Lets every engine discard its weights and its key/value cache. Raises Stalled."""
        self._call_all("sleep", "sleep")

    def wake(self, part: Literal["weights", "kv_cache"]) -> None:
        """Gives every engine room for its weights again, or after that for its key/value cache. Raises Stalled."""
        self._call_all("wake", f"wake its {part}", part)

    def _call_all(self, method: str, doing: str, *arguments: Any) -> None:
        alive = self.replicas.in_state(ReplicaState.SERVING, ReplicaState.DRAINING, ReplicaState.QUARANTINED)
        calls = {replica.name: getattr(replica.handle, method).remote(*arguments) for replica in alive}
        wait(calls, doing, self.timeout_s, BOUND)

    async def _follow(
        self,
        replica: Replica,
        prompts: list[Prompt],
        sampling: Sampling,
        arrivals: asyncio.Queue[SampledCompletion | BaseException],
    ) -> None:
        """Moves an engine's completions, or the engine's error, into the queue."""
        unfinished = len(prompts) * sampling.completions
        stream = replica.handle.generate.options(num_returns="streaming").remote(prompts, sampling)
        try:
            async for reference in stream:
                arrivals.put_nowait(await reference)
                unfinished -= 1
                self.replicas.release(replica, 1)
        except RayError as error:
            arrivals.put_nowait(error)
        finally:
            self.replicas.release(replica, unfinished)
