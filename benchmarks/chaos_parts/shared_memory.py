"""`SharedMemory`: files in /dev/shm that a run leaves behind."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

FOLDER = Path("/dev/shm")


class SharedMemory:
    """Remembers the files at the beginning."""

    def __init__(self) -> None:
        self.before = set(_files())

    def leaks(self) -> list[str]:
        """A line for each new file that no living process uses. Other runs of this machine may be to blame."""
        if not (new := set(_files()) - self.before):
            return []
        used = "\n".join(_maps(process) for process in psutil.process_iter())
        return [f"{FOLDER / name} is left" for name in sorted(new) if str(FOLDER / name) not in used]


def _files() -> list[str]:
    return os.listdir(FOLDER) if FOLDER.is_dir() else []


def _maps(process: psutil.Process) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process.pid}/maps").read_text(errors="replace")
    return ""
