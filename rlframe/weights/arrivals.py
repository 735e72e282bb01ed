"""`Arrivals`: the answers of engines that have loaded weights, and their consequences."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlframe.actors.replicas import Replica, ReplicaState
from rlframe.training import Loaded

if TYPE_CHECKING:
    from rlframe.weights.transport import Engines


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalReport:
    """Answers of engines since the previous report."""

    loads: int = 0  # with right checksums
    stall_s: float = 0.0  # longest pause of generation
    repaired: tuple[str, ...] = ()  # engines whose weights were wrong before


class Arrivals:
    """An engine with right weights serves. An engine with wrong weights is quarantined until whole weights arrive."""

    def __init__(self, engines: Engines) -> None:
        self.engines = engines
        self.replicas = engines.replicas
        self.broken: set[Replica] = set()  # engines whose last weights were wrong
        # Since the last report. One thread may note while another takes.
        self._answers: deque[Loaded] = deque()
        self._repaired: deque[str] = deque()

    def note(self, replica: Replica, version: int, loaded: Loaded) -> None:
        """Notes an engine's answer. An engine with wrong checksums twice in a row is lost."""
        if tensors := loaded.mismatched_tensors:
            if replica in self.broken:
                problem = f"weights of version {version} arrived broken, twice: {replica.name} ({', '.join(tensors)})"
                return self.engines.lose(replica, f"{problem}; check the memory and the network of its machine")
            return self.quarantine(replica)
        replica.version = version
        self.replicas.serve(replica)
        self._answers.append(loaded)
        if replica in self.broken:
            self.broken.remove(replica)
            self._repaired.append(replica.name)

    def quarantine(self, replica: Replica) -> None:
        """Notes an engine that holds wrong weights, or a part of a version."""
        self.replicas.quarantine(replica)
        self.broken.add(replica)

    def wrong(self) -> list[Replica]:
        """Engines that hold wrong weights and are not dead."""
        return [replica for replica in list(self.broken) if replica.state != ReplicaState.DEAD]

    def take(self) -> ArrivalReport:
        """The report on all answers since the last call."""
        answers = [self._answers.popleft() for _ in range(len(self._answers))]
        repaired = [self._repaired.popleft() for _ in range(len(self._repaired))]
        stall_s = max((answer.stall_s for answer in answers), default=0.0)
        return ArrivalReport(loads=len(answers), stall_s=stall_s, repaired=tuple(repaired))
