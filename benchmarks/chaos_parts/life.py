"""`Life`: a driver's process from its start to its end, with every process that was seen below it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
MARK = "RLFRAME_CHAOS"  # of the environment of all processes of a life, except sandboxes
REASON_CHARS = 1500


class Life:
    """One start of the run's command. Only processes below it ever get a signal."""

    def __init__(
        self, number: int, overrides: list[str], folder: Path, ray_folder: Path, rpc_failures: str | None
    ) -> None:
        """`folder`: for the console's output. `rpc_failures`: for Ray, as JSON."""
        self.number = number
        self.rpc_failures = rpc_failures
        self.mark = uuid.uuid4().hex
        self.console = folder / f"console-{number}.log"
        self.began = time.monotonic()
        self.ended: float | None = None
        self.expected: str | None = None  # the fault that ends the driver
        self.asked_at: float | None = None  # time of that fault
        self.seen: dict[psutil.Process, str] = {}  # below the driver -> title
        environment = os.environ | {
            MARK: self.mark,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "OMP_NUM_THREADS": "1",
            "RAY_TMPDIR": str(ray_folder),
            "COLUMNS": "250",
        }
        if rpc_failures:
            environment["RAY_testing_rpc_failure"] = rpc_failures
        command = [sys.executable, "-m", "benchmarks.chaos_parts.driver", "train", *overrides]
        with self.console.open("wb") as output:
            self.process = psutil.Popen(
                command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def poll(self) -> int | None:
        """The exit code; None while the driver lives."""
        code = self.process.poll()
        if code is not None and self.ended is None:
            self.ended = time.monotonic()
        return code

    def look(self) -> None:
        """Notes the processes below the driver."""
        with suppress(psutil.NoSuchProcess):
            for process in self.process.children(recursive=True):
                if process not in self.seen:
                    with suppress(psutil.Error):
                        self.seen[process] = process.name()

    def actors(self, logs: Path) -> dict[str, psutil.Process]:
        """The living actors' processes by name, as the headers of their log files tell."""
        below = {process.pid: process for process in self.seen if process.is_running()}
        actors = {}
        for file in logs.glob("*.log"):
            pids = re.findall(r"^=== pid (\d+) on ", file.read_text(errors="replace"), re.MULTILINE)
            if pids and (process := below.get(int(pids[-1]))) is not None and is_alive(process):
                actors[file.stem] = process
        return actors

    def send(self, number: signal.Signals) -> None:
        with suppress(psutil.NoSuchProcess):
            self.process.send_signal(number)

    def left(self) -> dict[psutil.Process, str]:
        """The life's processes that are alive, for a look after the driver's end."""
        left = {process: title for process, title in self.seen.items() if is_alive(process)}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid != self.pid and is_alive(process) and process.environ().get(MARK) == self.mark:
                    left[process] = process.name()
        return left

    def last_words(self) -> str:
        """The end of the console's output."""
        return self.console.read_text(errors="replace")[-REASON_CHARS:].strip()


def is_alive(process: psutil.Process) -> bool:
    """False for a process that has ended, whether or not its parent has noticed."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
