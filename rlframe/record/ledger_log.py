"""`ledger/000007/driver.log`: the driver's part of a run's log, written and read.

The log is cut into epochs, each a folder. A driver's start and every checkpoint open the next one. The first frame of
`driver.log` is the head, a dictionary that holds a whole state; the others are events, lists of values. Beside it are
the segments of episode workers. Epochs that nothing needs any more are deleted.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import msgpack

from rlframe.errors import RunFailed
from rlframe.record.frames import FrameWriter, read_frames
from rlframe.record.generation import Generation

FILE = "driver.log"
FLUSH_S = 1.0  # at most this long is an event in memory only


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """An epoch as it is on disk."""

    number: int
    file: Path
    head: dict[str, Any]
    events: list[list[Any]]


class LedgerLog:
    """Writes the driver's part of a log. A thread brings events to the disk at least every second.

    Any thread may call any method; `open` and `append` by turns of one thread.
    """

    def __init__(self, folder: Path, generation: Generation) -> None:
        """`generation`: of this driver, which writes nothing more once another one holds the run."""
        self.folder = folder
        self.generation = generation
        self.epoch = max(epochs(folder), default=0)
        self._writer: FrameWriter | None = None
        self._full: list[FrameWriter] = []  # of earlier epochs, not closed yet
        self._flushing = Lock()
        self._error: BaseException | None = None
        self._end = Event()
        self._thread = Thread(target=self._flush_for_ever, name="ledger", daemon=True)

    def make_epoch(self) -> Path:
        """Makes the folder of the next epoch. Raises RunFailed and Fenced."""
        folder = self.folder / f"{self.epoch + 1:06d}"
        self.generation.check()
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise _unwritten(folder, error) from error
        return folder

    def open(self, head: dict[str, Any]) -> None:
        """Begins the epoch whose folder was made. Later events go there. Raises RunFailed."""
        path = self.folder / f"{self.epoch + 1:06d}" / FILE
        try:
            writer = FrameWriter(path)
        except OSError as error:
            raise _unwritten(path, error) from error
        writer.append(_packed(head))
        if self._writer is None:
            self._thread.start()
        else:
            self._full.append(self._writer)
        self._writer = writer
        self.epoch += 1

    def append(self, event: list[Any]) -> None:
        """Adds an event. Raises the error of an earlier write."""
        if self._error is not None:
            raise self._error
        assert self._writer is not None, "an epoch is open"
        self._writer.append(_packed(event))

    def flush(self) -> None:
        """Returns once the disk has all events so far, those of earlier epochs first. Raises RunFailed and Fenced."""
        with self._flushing:
            if self._error is not None:
                raise self._error
            try:
                self._write()
            except BaseException as error:
                self._error = error
                raise

    def delete_before(self, epoch: int) -> None:
        """Deletes the epochs before `epoch`. Raises Fenced."""
        self.generation.check()
        for number in epochs(self.folder):
            if number < epoch:
                shutil.rmtree(self.folder / f"{number:06d}", ignore_errors=True)

    def close(self) -> None:
        """Brings all events to the disk, and ends the thread. A second call does nothing."""
        self._end.set()
        if self._writer is not None:
            self._thread.join()
            self._full.append(self._writer)
            self._writer = None
            if self._error is None:
                self.flush()

    def _write(self) -> None:
        writer = self._writer
        path = self.folder
        try:
            self.generation.check()
            while self._full:
                path = self._full[0].path
                self._full[0].close()
                del self._full[0]
            if writer is not None:
                path = writer.path
                writer.flush()
        except OSError as error:
            raise _unwritten(path, error) from error

    def _flush_for_ever(self) -> None:
        while not self._end.wait(FLUSH_S):
            try:
                self.flush()
            except BaseException:  # the next `append` raises the error
                return


def epochs(folder: Path) -> list[int]:
    """Numbers of the epochs of a log, in order; none where there is no log."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal()) if folder.exists() else []


def read_epochs(folder: Path) -> list[Epoch]:
    """Epochs with a whole head, in order. Torn ends are left out. Raises BrokenFrame, ValueError and OSError."""
    found = []
    for number in epochs(folder):
        file = folder / f"{number:06d}" / FILE
        frames = [msgpack.unpackb(content) for _, content in read_frames(file)] if file.exists() else []
        if frames:
            found.append(Epoch(number=number, file=file, head=frames[0], events=frames[1:]))
    return found


def _packed(value: Any) -> bytes:
    return msgpack.packb(value)  # pyright: ignore


def _unwritten(path: Path, error: OSError) -> RunFailed:
    return RunFailed(
        f"the run's log {path} cannot be written: {error}; free some space in run_dir and go on with resume=, or run "
        "without a log: checkpoint.every=0"
    )
