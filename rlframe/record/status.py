"""`status.json`: what a run does and waits for, as of now or when it died. Its driver writes it; people read it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from rlframe.record.files import replace_file
from rlframe.record.outages import Outages

State: TypeAlias = Literal["starting", "running", "finished", "stopped", "failed"]
SILENT_S = 5.0  # without an answer, beyond which an actor is said to be silent
NAMED_ACTORS = 16  # that a line lists


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorStatus:
    """What an actor does, by its last answer."""

    name: str
    doing: str | None  # None: nothing that has a name
    seconds: float  # since it began that
    silent_s: float  # for which it has not answered

    def line(self) -> str | None:
        """
        >>> ActorStatus(name="learner-1", doing="backward of micro-batch 3 of 8", seconds=41.2, silent_s=0).line()
        'learner-1: backward of micro-batch 3 of 8 for 41 s'
        >>> ActorStatus(name="learner-0", doing="step", seconds=60, silent_s=38).line()
        'learner-0 has not answered for 38 s'
        """
        if self.silent_s >= SILENT_S:
            return f"{self.name} has not answered for {self.silent_s:.0f} s"
        return self.doing and f"{self.name}: {self.doing} for {self.seconds:.0f} s"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """An engine's work, by its episode worker's last report."""

    name: str
    completions: int  # unfinished
    tokens_per_s: float
    silent_s: float  # without a token, while it has completions and loads nothing
    loading_s: float | None  # of new weights; None: it loads nothing
    version: int  # of the policy that samples

    def line(self) -> str | None:
        """
        >>> engine = EngineStatus(
        ...     name="rollout-3", completions=14, tokens_per_s=0.0, silent_s=40.0, loading_s=None, version=7
        ... )
        >>> engine.line()
        'rollout-3: 14 sequences, no token for 40 s'
        """
        if self.loading_s is not None:
            return f"{self.name}: {self.completions} sequences wait for new weights, for {self.loading_s:.0f} s"
        if not self.completions:
            return None
        tokens = f"no token for {self.silent_s:.0f} s" if self.silent_s >= 1 else f"{self.tokens_per_s:.0f} tokens/s"
        return f"{self.name}: {self.completions} sequences, {tokens}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitStatus:
    """A wait of the driver."""

    text: str  # "learner-0, learner-1 to take step 7 (cluster.stall_timeout_s=1800)"
    seconds: float  # since its beginning
    unmoved_s: float  # since the last progress of anybody that it waits for
    bound_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A run as its driver saw it at `time`."""

    state: State
    reason: str  # of the end; empty while the run goes on
    step: int  # that the run has reached
    steps: int  # of the whole run
    host: str  # of the driver
    pid: int  # likewise
    generation: int | None  # of the driver, among all that have held the run; None: it has not taken the run yet
    started: float  # Unix time of the driver's start
    time: float  # Unix time of this status
    doing: str | None  # the driver's own work, such as a phase of the start
    waits: list[WaitStatus]
    engines: list[EngineStatus]
    actors: list[ActorStatus]  # of every role
    metrics: dict[str, float | None]  # of the last step; None: not finite
    engine_states: dict[str, int] = field(default_factory=dict)  # `ENGINE_STATES` -> engines; empty until all started
    prompt_states: dict[str, int] = field(default_factory=dict)  # `PROMPT_STATES` -> prompts; likewise
    verdicts: dict[str, int] = field(default_factory=dict)  # status -> verdicts, since this driver's start
    metrics_url: str = ""  # of the metrics agent of the driver's node; empty: none
    outages: Outages = field(default_factory=Outages)

    @property
    def unmoved_s(self) -> float:
        """Seconds for which the longest wait of the driver has not moved; 0 without a wait."""
        return max((wait.unmoved_s for wait in self.waits), default=0.0)

    def lines(self) -> list[str]:
        """A line for each actor that works, or that does not answer: the longest unmoved first."""
        silent = {actor.name for actor in self.actors if actor.silent_s >= SILENT_S}
        found = [(max(actor.silent_s, actor.seconds), actor.line()) for actor in self.actors]
        found += [(each.loading_s or each.silent_s, each.line()) for each in self.engines if each.name not in silent]
        lines = [line for _, line in sorted(found, key=lambda each: -each[0]) if line]
        rest = [f"and {len(lines) - NAMED_ACTORS} more actors"] if len(lines) > NAMED_ACTORS else []
        return lines[:NAMED_ACTORS] + rest


def write_status(file: Path, status: Status) -> None:
    """Replaces the file. Raises OSError."""
    replace_file(file, json.dumps(dataclasses.asdict(status), indent=1).encode())


def read_status(file: Path) -> Status:
    """Raises OSError, and ValueError for a file that is no status."""
    from pydantic import TypeAdapter

    return TypeAdapter(Status).validate_json(file.read_bytes())
