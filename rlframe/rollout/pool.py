"""`RolloutPool`: brings versions of the policy to engines in other processes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from rlframe.actors.background import Background
from rlframe.actors.calls import gather
from rlframe.actors.replicas import Replica, Replicas, ReplicaState
from rlframe.errors import RunFailed
from rlframe.training import Loaded

BOUND = "cluster.stall_timeout_s"


class RolloutPool:
    """Typed handle over engine actors, which `cluster/` starts and ends.

    Engines are called on the background's event loop. Methods that are not coroutines are for any other thread.
    """

    def __init__(self, replicas: Replicas, background: Background, *, timeout_s: float) -> None:
        """`timeout_s`: for an engine to pause, to load weights or to resume."""
        self.replicas = replicas
        self.background = background
        self.timeout_s = timeout_s
        self.version = 0  # the newest policy version that was announced
        # Replaces a lost engine: name, reason; called from any thread. None: the loss ends the run.
        self.on_loss: Callable[[str, str], None] | None = None
        self._subscribers: list[Callable[[int], Awaitable[object]]] = []

    @property
    def oldest_version(self) -> int:
        """The oldest policy version with which an engine samples; `version` where no engine does.

        A quarantined engine is frozen, and samples with the version that repairs it.
        """
        return min((replica.version for replica in self.replicas.serving()), default=self.version)

    def subscribe(self, on_version: Callable[[int], Awaitable[object]]) -> None:
        """Calls and awaits `on_version` at each announcement of a version, on the background's event loop."""
        self._subscribers.append(on_version)

    def announce(self, version: int) -> None:
        """Tells all subscribers of a version that is published. Engines load the version only afterwards."""

        async def call() -> None:
            self.version = version
            await asyncio.gather(*(on_version(version) for on_version in self._subscribers))

        self.background.run(call())

    def lose(self, replica: Replica, reason: str) -> None:
        """Gives up an engine that failed, perhaps in the middle of a load: it gets neither weights nor work any more.

        For any thread. `reason` names the engine. Raises RunFailed with it where nobody replaces engines.
        """
        if replica.state == ReplicaState.DEAD:
            return
        self.replicas.end(replica.name)
        if self.on_loss is None:
            raise RunFailed(reason)
        self.on_loss(replica.name, reason)

    async def load(self, replica: Replica, version: int, snapshot: Any) -> Loaded:
        """Lets an engine load a version; `snapshot`: a reference to the `Snapshot`. Raises Stalled."""
        call = {replica.name: replica.handle.load.remote(snapshot)}
        (loaded,) = await gather(call, f"load version {version}", self.timeout_s, BOUND)
        return loaded

    def pause(self, replicas: list[Replica]) -> list[Replica]:
        """Freezes the engines' requests -> the engines that answered; the others are lost."""
        answers = self._ask(replicas, "pause", "pause")
        return [replica for replica in replicas if replica.name in answers]

    def resume(self, replicas: list[Replica], version: int, fingerprints: dict[str, int]) -> dict[str, Loaded]:
        """Lets frozen requests go on with the weights that came since `pause`, as the policy's `version`.

        An engine whose weights differ from `fingerprints` (of the learner's tensors, by name) stays frozen. An engine
        without an answer is lost.
        """
        return self._ask(replicas, "resume", f"resume as version {version}", version, fingerprints)

    def sleep(self) -> None:
        """Lets every engine discard its weights and its key/value cache. Raises Stalled."""
        self._call(self._alive(), "sleep", "sleep")

    def wake(self, part: Literal["weights", "kv_cache"]) -> None:
        """Gives every engine room for its weights again, or after that for its key/value cache. Raises Stalled."""
        self._call(self._alive(), "wake", f"wake its {part}", part)

    def _alive(self) -> list[Replica]:
        return self.replicas.in_state(ReplicaState.SERVING, ReplicaState.QUARANTINED)

    def _call(self, replicas: list[Replica], method: str, doing: str, *arguments: Any) -> None:
        """Calls a method of all `replicas` at the same time. Raises the first error, and Stalled."""

        async def call() -> None:
            calls = {replica.name: getattr(replica.handle, method).remote(*arguments) for replica in replicas}
            await gather(calls, doing, self.timeout_s, BOUND)

        self.background.run(call())

    def _ask(self, replicas: list[Replica], method: str, doing: str, *arguments: Any) -> dict[str, Any]:
        """Calls a method of all `replicas` at the same time -> answers by name; an engine without an answer is lost."""
        answers: dict[str, Any] = {}

        async def call(replica: Replica) -> None:
            try:
                request = {replica.name: getattr(replica.handle, method).remote(*arguments)}
                [answers[replica.name]] = await gather(request, doing, self.timeout_s, BOUND)
            except Exception as error:
                self.lose(replica, f"{replica.name} failed to {doing}: {error}")

        async def call_all() -> None:
            await asyncio.gather(*(call(replica) for replica in replicas))

        self.background.run(call_all())
        return answers
