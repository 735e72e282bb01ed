"""`Storm`: the faults of a plan over a run, one after the other or close together, and what the run does meanwhile."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.chaos_parts.disk import SmallDisk
from benchmarks.chaos_parts.drivers import Drivers
from benchmarks.chaos_parts.faults import Fault
from benchmarks.chaos_parts.life import ROOT
from benchmarks.chaos_parts.settings import ENGINES
from benchmarks.chaos_parts.shared_memory import SharedMemory
from benchmarks.chaos_parts.usage import Usage
from benchmarks.chaos_parts.victims import Victims
from rlframe.record.directory import RunDir
from rlframe.record.status import read_status

LOOK_S = 0.25
CLOSE = 0.4  # share of the faults that follow the one before within CLOSE_S, whatever the run does
CLOSE_S = 1.5
BREATH_S = 2.0  # at most, between the step after a fault and the next fault
FILLED_S = (2.0, 8.0)
STUCK_S = 240.0  # without a step: a stopped rank is found after 40 s, and new ranks start in 20 s or more
HOPELESS_LIVES = 8
NO_VICTIM_S = 150.0  # for an actor of the kind to start
AFTER_DISK_S = 60.0  # in which a full disk may end the driver
TAIL = 1 << 14  # bytes of the metrics, which hold a whole row


@dataclass(slots=True, kw_only=True)
class Struck:
    """A fault that has happened."""

    number: int
    fault: Fault
    victims: str
    at: float
    step: int
    seconds: float | None = None  # until the run took the next step


class Storm:
    def __init__(
        self, drivers: Drivers, disk: SmallDisk, random_source: random.Random, say: Callable[[str], None]
    ) -> None:
        """`say` gets a line for each fault and each finding."""
        self.drivers = drivers
        self.disk = disk
        self.random = random_source
        self.say = say
        self.files = RunDir(disk.folder)
        self.victims = Victims(random_source)
        self.usage = Usage()
        self.shared_memory = SharedMemory()
        self.struck: list[Struck] = []
        self.wrong: list[str] = []
        self.began = time.monotonic()
        self._moved_at, self._step = time.monotonic(), 0
        self._lives = 0  # of the driver, at the last step
        self._free_at: float | None = None
        self._freed_at = float("-inf")
        self._scales: list[tuple[str, subprocess.Popen[str]]] = []
        drivers.excused = lambda: "the disk was full" if self._disk_hurts() else None

    def strike_all(self, faults: list[Fault], deadline: float) -> None:
        """Strikes until no fault is left, or the time is over."""
        self.until_step()
        for fault in faults:
            if time.monotonic() > deadline:
                return
            if self.random.random() < CLOSE:
                self._for_seconds(self.random.uniform(0, CLOSE_S))
            else:
                self.until_step()
                self._for_seconds(self.random.uniform(0, BREATH_S))
            if victims := self._strike(fault):
                struck = Struck(
                    number=len(self.struck) + 1, fault=fault, victims=victims, at=time.monotonic(), step=self._step
                )
                self.struck.append(struck)
                self.say(
                    f"{struck.at - self.began:7.1f} s  step {struck.step:5d}  {struck.number:3d} {fault}: {victims}"
                )
            else:
                self.say(f"{time.monotonic() - self.began:7.1f} s  {fault}: nobody to hit, left out")

    def until_step(self) -> None:
        """Returns once the run has taken a step since the last fault."""
        last = self.struck[-1] if self.struck else None
        self.until(lambda: self._step > (last.step if last else 0))

    def until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            self._for_seconds(LOOK_S)

    def look(self) -> None:
        """Everything that happens a few times a second."""
        now = time.monotonic()
        self.drivers.look()
        self._read_step(now)
        if self._free_at is not None and now >= self._free_at:
            self.disk.free()
            self._free_at, self._freed_at = None, now
        self.wrong += self.victims.look()
        life = self.drivers.life
        if self.drivers.goes_on() and self.usage.is_due(now):  # a driver that ends draws curves, and closes much
            self.usage.sample(now, life.number, [("driver", life.process), *life.actors(self.files.logs).items()])
            self.shared_memory.look([life.process, *life.seen])
        for wish, process in list(self._scales):
            if process.poll() is not None:
                self._scales.remove((wish, process))
                self.say(f"           scale {wish} ended with {process.returncode}: {process.communicate()[0].strip()}")
        for line in self.drivers.notes + self.drivers.wrong:
            self.say(f"           {line}")
        self.wrong += self.drivers.wrong
        self.drivers.notes, self.drivers.wrong = [], []
        if len(self.drivers.lives) - self._lives > HOPELESS_LIVES:
            raise SystemExit(f"{HOPELESS_LIVES} drivers in a row took no step: {life.last_words()}")
        if now - self._moved_at > STUCK_S:
            status = subprocess.run(
                [sys.executable, "-m", "rlframe.cli", "status", str(self.disk.folder)], capture_output=True, text=True
            )
            self.wrong.append(f"no step for {STUCK_S:.0f} s after step {self._step}: {status.stdout.strip()}")
            self.say(self.wrong[-1])
            self._moved_at = now
            self.drivers.kill()

    def _for_seconds(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.look()
        while (rest := end - time.monotonic()) > 0:
            time.sleep(min(LOOK_S, rest))
            self.look()

    def _strike(self, fault: Fault) -> str:
        """-> the victims; empty: there was none."""
        match fault.action:
            case "fill":
                taken = self.disk.fill()
                seconds = self.random.uniform(*FILLED_S)
                self._free_at = time.monotonic() + seconds
                return f"{taken >> 20} MiB for {seconds:.1f} s"
            case "scale":
                wish = self.random.choice([*map(str, range(ENGINES[0], ENGINES[1] + 1)), "auto"])
                command = [sys.executable, "-m", "rlframe.cli", "scale", str(self.disk.folder), f"rollout={wish}"]
                process = subprocess.Popen(
                    command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
                )
                self._scales.append((wish, process))
                return f"rollout={wish}"
        if fault.target == "driver":
            self.until(self.drivers.goes_on)
            return {
                "kill": self.drivers.kill,
                "terminate": self.drivers.terminate,
                "second": self.drivers.take_over,
            }[fault.action]()
        deadline = time.monotonic() + NO_VICTIM_S
        while time.monotonic() < deadline:
            # An actor that dies while a driver starts its actors ends the driver, with the reason.
            actors = self.drivers.life.actors(self.files.logs) if self._has_started() else {}
            if victims := self.victims.strike(fault, actors):
                return ", ".join(victims)
            self._for_seconds(0.5)
        return ""

    def _has_started(self) -> bool:
        """True once all actors of the newest driver have started, as its status says."""
        try:
            status = read_status(self.files.status)
        except (OSError, ValueError):
            return False
        return status.pid == self.drivers.life.pid and status.state == "running"

    def _read_step(self, now: float) -> None:
        step = newest_step(self.files)
        if step > self._step:
            self._step, self._moved_at, self._lives = step, now, len(self.drivers.lives)
            for struck in self.struck:
                if struck.seconds is None and step > struck.step:
                    struck.seconds = now - struck.at

    def _disk_hurts(self) -> bool:
        return self._free_at is not None or time.monotonic() - self._freed_at < AFTER_DISK_S


def newest_step(files: RunDir) -> int:
    """The step of the last whole row of the metrics."""
    try:
        with files.metrics.open("rb") as file:
            file.seek(-min(TAIL, file.seek(0, 2)), 2)
            rows = file.read().split(b"\n")[:-1]
    except OSError:
        return 0
    starts = [row for row in rows if row.startswith(b'{"step": ')]
    return int(starts[-1][len(b'{"step": ') :].partition(b",")[0]) if starts else 0
