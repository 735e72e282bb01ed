"""`Drivers`: the lives of a run's driver, one after the other. Each end is followed by the same command again."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.chaos_parts.life import Life
from benchmarks.chaos_parts.rpc import draw_failures
from benchmarks.chaos_parts.settings import ENDLESS

ORPHANS_S = 30.0  # after a driver's end, none of its processes lives
LOOK_S = 2.0  # between two looks for them
STOPPED_S = 150.0  # for a driver to end after SIGTERM, or after another one has taken over
RESTART_S = (0.0, 6.0)
STOPPED = 130  # exit code after a signal, once a checkpoint is saved
BEFORE_START = (-signal.SIGTERM, 128 + signal.SIGTERM)  # likewise of a driver that had not begun to listen
UNSTARTED = "✗ starting engines"  # a line of the console
FENCED = "another driver has taken over"


class Drivers:
    """Starts drivers, and looks at the ends of all of them."""

    def __init__(self, overrides: list[str], folder: Path, ray_folder: Path, random_source: random.Random) -> None:
        """`folder`: for the output of all lives. `ray_folder`: a short name, since a socket's name has 107 bytes."""
        self.overrides = overrides
        self.folder = folder
        self.ray_folder = ray_folder
        self.random = random_source
        self.excused: Callable[[], str | None] = lambda: None  # the reason why a driver may end by itself now
        self.wrong: list[str] = []
        self.notes: list[str] = []
        self.lives: list[Life] = []
        self.living = True  # an end is followed by a start
        self._left: set[int] = set()  # numbers of lives whose orphans were looked for
        self._ended: set[int] = set()  # numbers of lives whose end was judged
        self._resumed: dict[int, float] = {}  # number of a driver that stands still -> time to go on
        self._next_at: float | None = None
        self._next_look = 0.0

    @property
    def life(self) -> Life:
        """The newest."""
        return self.lives[-1]

    def goes_on(self) -> bool:
        """True while the newest driver lives and nothing was done to end it."""
        return self.life.poll() is None and not self.life.expected

    def start(self) -> None:
        number = len(self.lives) + 1
        self._start(ENDLESS, draw_failures(number, self.random))

    def complete(self, steps: int) -> None:
        """Starts a driver that goes on to the last step."""
        self._start(steps, None)
        self.life.expected = "complete"

    def kill(self) -> str:
        return self._end("kill driver", signal.SIGKILL)

    def terminate(self) -> str:
        return self._end("terminate driver", signal.SIGTERM)

    def take_over(self) -> str:
        """Starts another driver beside the living one, which may stand still meanwhile."""
        older, still = self.life, self.random.random() < 0.5
        older.expected, older.asked_at = "second driver", time.monotonic()
        if still:
            older.send(signal.SIGSTOP)
            self._resumed[older.number] = time.monotonic() + self.random.uniform(5, 30)
        self.start()
        return f"life {self.life.number} beside life {older.number}{', which stands still meanwhile' if still else ''}"

    def look(self) -> None:
        """Judges ends, looks for orphans, and starts the next driver."""
        now = time.monotonic()
        for life in self.lives:
            if life.poll() is None:
                life.look()
                self._hurry(life, now)
            elif life.number not in self._ended:
                self._ended.add(life.number)
                self._judge(life)
                if life is self.life and self.living:
                    self._next_at = now + self.random.choice((0.0, self.random.uniform(*RESTART_S)))
            elif life.number not in self._left and now >= self._next_look:
                self._next_look = now + LOOK_S
                self._look_for_orphans(life, now)
        if self._next_at is not None and now >= self._next_at:
            self.start()

    def all_looked_at(self) -> bool:
        """True once every driver has ended, and all orphans had their time."""
        return len(self._left) == len(self.lives)

    def consoles(self) -> str:
        return "\n".join(life.console.read_text(errors="replace") for life in self.lives)

    def _start(self, steps: int, rpc_failures: str | None) -> None:
        self._next_at = None
        overrides = [*self.overrides, f"steps={steps}"]
        self.lives.append(Life(len(self.lives) + 1, overrides, self.folder, self.ray_folder, rpc_failures))

    def _end(self, name: str, number: signal.Signals) -> str:
        self.life.expected = name
        self.life.send(number)
        self.life.asked_at = time.monotonic()
        return f"life {self.life.number} (pid {self.life.pid})"

    def _hurry(self, life: Life, now: float) -> None:
        """Lets a driver that stands still go on, and ends a driver that should have ended."""
        if now >= self._resumed.get(life.number, float("inf")):
            del self._resumed[life.number]
            life.send(signal.SIGCONT)
        if life.expected and life.asked_at is not None and now - life.asked_at > STOPPED_S:
            late = f"life {life.number} has not ended {STOPPED_S:.0f} s after: {life.expected}"
            self.wrong.append(f"{late}; {life.last_words()}")
            life.asked_at = None
            life.send(signal.SIGKILL)

    def _judge(self, life: Life) -> None:
        code, words = life.poll(), life.last_words()
        seconds = (life.ended or 0.0) - life.began
        failing = ", while Ray let calls fail" if life.rpc_failures else ""
        cause = life.expected or "by itself"
        self.notes.append(f"life {life.number} ended with {code} after {seconds:.0f} s: {cause}{failing}")
        match life.expected:
            case "kill driver" | "complete":
                right = code == (-signal.SIGKILL if life.expected == "kill driver" else 0)
            case "terminate driver":
                right = code in (STOPPED, *BEFORE_START)
            case "second driver":
                right = code == 1 and FENCED in words
            case _:
                right = False
        if not right:
            excuse = self.excused()
            if life.rpc_failures and UNSTARTED in words:
                excuse = "Ray let a call of the start fail"
            text = f"life {life.number} ended with {code} ({life.expected or 'by itself'}): {words}"
            (self.notes if excuse else self.wrong).append(f"{excuse}: {text}" if excuse else text)

    def _look_for_orphans(self, life: Life, now: float) -> None:
        """Ends the looks at a life once none of its processes is left, or they have had their time."""
        left = life.left()
        if left and now - (life.ended or now) < ORPHANS_S:
            return
        self._left.add(life.number)
        for process, title in left.items():
            seconds = now - (life.ended or now)
            self.wrong.append(f"{title} (pid {process.pid}) lives {seconds:.0f} s after the end of life {life.number}")
            with suppress(psutil.NoSuchProcess):
                process.kill()
