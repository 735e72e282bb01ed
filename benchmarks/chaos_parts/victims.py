"""`Victims`: sends signals to the processes of a run, and remembers those that stand still."""

from __future__ import annotations

import random
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil

from benchmarks.chaos_parts.faults import Fault
from benchmarks.chaos_parts.life import is_alive
from benchmarks.chaos_parts.settings import STALL_S

PAUSE_S = (0.5, 4.0)  # less than any bound of silence
GONE_S = 2 * STALL_S + 60.0  # after which a stopped process must have been ended by the run
ALL_AT_ONCE = 0.1  # share of the faults that hit every actor of the kind
SIGNALS = {
    "kill": signal.SIGKILL,
    "terminate": signal.SIGTERM,
    "stop": signal.SIGSTOP,
    "pause": signal.SIGSTOP,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A process that got SIGSTOP."""

    name: str
    process: psutil.Process
    at: float
    continue_at: float | None  # None: never


class Victims:
    def __init__(self, random_source: random.Random) -> None:
        self.random = random_source
        self.stopped: list[Stopped] = []
        self.dying: set[psutil.Process] = set()  # got a signal that ends a process

    def strike(self, fault: Fault, actors: dict[str, psutil.Process]) -> list[str]:
        """Hits an actor of the fault's kind that was not hit before, or all of them -> "rollout-1 (pid 4711)"."""
        hit = self.dying.union(each.process for each in self.stopped)
        kind, draw, all_of_them = f"{fault.target}-", self.random.random(), self.random.random() < ALL_AT_ONCE
        names = sorted(name for name, each in actors.items() if name.startswith(kind) and each not in hit)
        chosen = names if all_of_them else names[int(draw * len(names)) :][:1]
        return [f"{name} (pid {actors[name].pid})" for name in chosen if self._send(fault, name, actors[name])]

    def _send(self, fault: Fault, name: str, process: psutil.Process) -> bool:
        now = time.monotonic()
        try:
            process.send_signal(SIGNALS[fault.action])
        except psutil.NoSuchProcess:
            return False
        if fault.action in ("stop", "pause"):
            until = now + self.random.uniform(*PAUSE_S) if fault.action == "pause" else None
            self.stopped.append(Stopped(name=name, process=process, at=now, continue_at=until))
        else:
            self.dying.add(process)
        return True

    def look(self) -> list[str]:
        """Continues what was paused -> a line for each stopped process that the run has not ended in time."""
        now, lines, still = time.monotonic(), [], []
        for each in self.stopped:
            if not is_alive(each.process):
                continue
            late = each.continue_at is None and now - each.at > GONE_S
            if late:
                seconds = now - each.at
                lines.append(
                    f"{each.name} (pid {each.process.pid}) stands still for {seconds:.0f} s, and nobody ended it"
                )
            if late or (each.continue_at is not None and now >= each.continue_at):
                with suppress(psutil.NoSuchProcess):
                    each.process.resume()
            else:
                still.append(each)
        self.stopped = still
        return lines

    def continue_all(self) -> None:
        for each in self.stopped:
            with suppress(psutil.NoSuchProcess):
                each.process.resume()
        self.stopped = []
