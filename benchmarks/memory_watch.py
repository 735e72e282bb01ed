"""`Watch`: the largest anonymous memory of processes, looked at from outside."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

import psutil

INTERVAL_S = 0.002


class Watch:
    """The largest anonymous memory of processes, over that at the start of the watch.

    `weights`: a file. Processes that the watched ones start are watched from the moment at which they map this file:
    then their libraries are there, and the model is not.
    """

    def __init__(self, processes: list[int], weights: Path | None = None) -> None:
        self.base = {process: anonymous(process) for process in processes}
        self.peaks = dict.fromkeys(processes, 0)
        self.weights = weights
        self._parents = [psutil.Process(process) for process in processes]
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def take(self) -> int:
        """The largest growth since the last call: of a rank, or of all processes of an engine together."""
        peaks = list(self.peaks.values())
        self.peaks = dict.fromkeys(self.peaks, 0)
        return sum(peaks) if self.weights else max(peaks)

    def close(self) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._end.wait(INTERVAL_S):
            with suppress(OSError, psutil.Error):
                self._find_children()
                for process, base in list(self.base.items()):
                    self.peaks[process] = max(self.peaks[process], anonymous(process) - base)

    def _find_children(self) -> None:
        if self.weights is None or len(self.base) > len(self._parents):
            return
        for parent in self._parents:
            for child in parent.children(recursive=True):
                if str(self.weights) in Path(f"/proc/{child.pid}/maps").read_text():
                    self.base[child.pid], self.peaks[child.pid] = anonymous(child.pid), 0


def anonymous(process: int) -> int:
    """Bytes of a process's own memory, files and shared memory apart."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) << 10
