"""`SharedMemory`: files in /dev/shm that processes of a run have used, and that they leave behind."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

MAPPED = re.compile(r" (/dev/shm/\S+)$", re.MULTILINE)  # in /proc/PID/maps; a file that is deleted has a word behind it


class SharedMemory:
    """Other programs of the machine have files there too, so only what the run's processes map is looked at."""

    def __init__(self) -> None:
        self.used: set[Path] = set()

    def look(self, processes: Iterable[psutil.Process]) -> None:
        for process in processes:
            with suppress(OSError):
                maps = Path(f"/proc/{process.pid}/maps").read_text(errors="replace")
                self.used |= {Path(name) for name in MAPPED.findall(maps)}

    def leaks(self) -> list[str]:
        return [f"{file} is left" for file in sorted(self.used) if file.exists()]
