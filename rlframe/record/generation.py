"""`Generation`: a driver's number among the drivers that have held a run, so that an older driver writes no more.

run_dir/generations/000001    {"host": "node-3", "pid": 4711, "began": "2026-11-29 02:10:00"}
run_dir/generations/000002    a second driver, which took the run over: from now on the first is fenced
"""

from __future__ import annotations

import json
import os
import socket
from datetime import datetime
from pathlib import Path

from rlframe.errors import Fenced

UNKNOWN = "whose file says nothing yet"


class Generation:
    """A number that one driver alone has taken. `check` comes before each write that others rely on."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.number = number

    @classmethod
    def take(cls, folder: Path) -> Generation:
        """Takes the next number, which fences every earlier driver. Raises OSError."""
        driver = {"host": socket.gethostname(), "pid": os.getpid(), "began": f"{datetime.now():%Y-%m-%d %H:%M:%S}"}
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            number = newest(folder) + 1
            try:
                with (folder / f"{number:06d}").open("x") as file:  # of two drivers at once, one gets the number
                    file.write(json.dumps(driver))
                    file.flush()
                    os.fsync(file.fileno())
            except FileExistsError:
                continue
            return cls(folder, number)

    def check(self) -> None:
        """Raises Fenced once another driver has taken the run."""
        if (number := newest(self.folder)) > self.number:
            raise Fenced(
                f"run_dir: another driver has taken over {self.folder.parent}: "
                f"{_driver(self.folder / f'{number:06d}')}. This driver ends, and writes nothing more"
            )


def newest(folder: Path) -> int:
    """The largest number that a driver has taken; 0 before the first."""
    return max((int(name) for name in os.listdir(folder) if name.isdecimal()), default=0)


def _driver(file: Path) -> str:
    try:
        driver = json.loads(file.read_text())
        return f"pid {driver['pid']} on {driver['host']}, since {driver['began']}"
    except (ValueError, KeyError):  # the other driver has made the file and not written it yet
        return UNKNOWN
