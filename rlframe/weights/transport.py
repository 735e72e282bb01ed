"""`Transport`: brings versions from the learner to engines, and the two sides that a transport stands between."""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

from rlframe.actors.replicas import Handle, Replica, Replicas
from rlframe.training import Loaded
from rlframe.weights.arrivals import Arrivals
from rlframe.weights.snapshot import Snapshot

DeviceBackend: TypeAlias = Literal["nccl", "ipc"]  # vLLM's transports between GPUs


class Learner(Protocol):
    """The learner's side: `learner/group.py`."""

    version: int

    def publish(self, *, whole: bool) -> Snapshot: ...

    def join_engines(
        self, backend: DeviceBackend, engines: dict[str, Handle], workers: int, chunk_bytes: int
    ) -> None: ...

    def send(self) -> dict[str, int]: ...

    def dead_ranks(self) -> list[str]: ...


class Engines(Protocol):
    """The engines' side: `rollout/pool.py`."""

    replicas: Replicas

    def lose(self, replica: Replica, reason: str) -> None: ...

    def announce(self, version: int) -> None: ...

    async def load(self, replica: Replica, version: int, snapshot: Any) -> Loaded: ...

    def pause(self, replicas: list[Replica]) -> list[Replica]: ...

    def resume(self, replicas: list[Replica], version: int, fingerprints: dict[str, int]) -> dict[str, Loaded]: ...


class Transport(Protocol):
    """The methods raise Stalled where a rank does not answer within the bound. An engine that does not is lost."""

    arrivals: Arrivals
    together: bool  # all engines receive a version at the same time, and wait for each other

    def make_room(self) -> None:
        """Returns once memory has room for a further version."""
        ...

    def publish(self, *, whole: bool) -> Snapshot:
        """The learner's current version. `whole`: every value travels, also where deltas would do."""
        ...

    def deliver(self, snapshot: Snapshot, replicas: list[Replica], *, whole: bool) -> None:
        """Brings the version to the engines, or begins to."""
        ...

    def unrepaired(self) -> list[Replica]:
        """Engines with wrong weights, or without any, that no load is going to repair."""
        ...

    def wait(self, oldest_version: int | None) -> None:
        """Returns once no serving engine is older; None: once no engine loads, except for late engines."""
        ...

    async def bring(self, replica: Replica) -> None:
        """Brings the newest version to a late engine, which then serves. On the background's event loop."""
        ...

    def learner_lost(self) -> None:
        """Forgets the weights that ranks held which have died: late engines wait for the next version."""
        ...
