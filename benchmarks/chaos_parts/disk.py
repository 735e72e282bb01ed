"""`SmallDisk`: a file system in memory with a bound, which can be filled, where this process may mount one."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

FILLER = "filler"
CHUNK = bytes(1 << 16)


class SmallDisk:
    """A `with` block around a run. Without root, a plain folder that cannot be filled."""

    def __init__(self, folder: Path, size_mib: int) -> None:
        self.folder = folder
        self.size_mib = size_mib
        self.mounted = False

    def __enter__(self) -> SmallDisk:
        self.folder.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={self.size_mib}m", "rlframe-chaos", str(self.folder)]
        self.mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
        return self

    def __exit__(self, *_: object) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", str(self.folder)], check=True)

    def fill(self) -> int:
        """Takes all room -> bytes taken."""
        taken = 0
        with (self.folder / FILLER).open("wb", buffering=0) as filler:
            try:
                while True:
                    taken += filler.write(CHUNK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        return taken

    def free(self) -> None:
        (self.folder / FILLER).unlink(missing_ok=True)
