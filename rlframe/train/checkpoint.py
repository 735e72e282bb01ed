"""Checkpoints of a run: learner shards and the state of the driver's parts, under one manifest.

A checkpoint is copied to memory at once and written into a temporary folder while training goes on. A manifest then
lists every file with size and hash, everything is synced to disk, and the folder is renamed last. A checkpoint with a
manifest that does not match was cut short; such checkpoints are named and skipped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

from rlframe.errors import RunFailed, Stalled

if TYPE_CHECKING:
    from rlframe.config.train import CheckpointConfig
    from rlframe.learner.group import LearnerGroup

FORMAT = 2  # of state.json
MANIFEST = "manifest.json"
STATE = "state.json"
POLL_S = 0.2  # seconds between checks that all ranks have written; a rank answers after the current step
AFTER_ERROR_S = 60.0  # a failing run waits this long for a checkpoint in progress


class Stateful(Protocol):
    """A part of the driver whose state a checkpoint holds, as JSON values."""

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


class Checkpoints:
    """A run's checkpoints, each written while training goes on. A second checkpoint waits for the first.

    Leaving the `with` block waits for the last checkpoint: a minute after an error, not at all after a signal, since
    the handler of `Stop` has waited already.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        folder: Path,
        learner: LearnerGroup,
        stateful: Mapping[str, Stateful],
        *,
        timeout_s: float,
    ) -> None:
        """`stateful`: by the name that their state has in state.json. `timeout_s`: bound on a wait for the writing."""
        self.config = config
        self.folder = folder
        self.learner = learner
        self.stateful = stateful
        self.step = 0  # of the newest checkpoint
        self.timeout_s = timeout_s
        self._waited_s = 0.0
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self._end = Event()

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
            elif issubclass(kind, Exception):
                with suppress(Exception):
                    self._wait(AFTER_ERROR_S)
        finally:
            self._end.set()
            self._writer.shutdown(wait=False)

    def check_folder(self) -> None:
        """Raises RunFailed where the folder is not the same on all machines: checkpoints would lack ranks' shards."""
        if self.config.every:
            with NamedTemporaryFile(dir=self.folder, prefix=".shared-") as marker:
                self.learner.check_shared(Path(marker.name))

    def save(self, step: int) -> None:
        """Starts the checkpoint of a step. On return training may go on. Raises the previous checkpoint's error."""
        start = time.monotonic()
        self._wait(self.timeout_s)
        target = self.folder / f"step_{step:06d}"
        partial = self.folder / f".{target.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        self.learner.save(partial / "learner", partial / "huggingface" if self.config.export else None)
        state = {name: part.state() for name, part in self.stateful.items()}
        (partial / STATE).write_text(json.dumps({"format": FORMAT, "step": step} | state))
        self._writing = self._writer.submit(self._finish, partial, target)
        self.step = step
        self._waited_s += time.monotonic() - start

    def restore(self, warn: Callable[[str], None]) -> int:
        """Restores learner and parts from the newest whole checkpoint -> the step. `warn` gets skipped checkpoints.

        Raises RunFailed without a whole checkpoint, or if another version of rlframe wrote the checkpoint.
        """
        checkpoint = newest_whole(self.folder, warn)
        state = json.loads((checkpoint / STATE).read_text())
        if state.get("format") != FORMAT:
            raise RunFailed(
                f"checkpoint {checkpoint} has format {state.get('format')}, and this version of rlframe reads format "
                f"{FORMAT}: resume with the version that wrote it, or start a new run from {checkpoint}/huggingface"
            )
        self.learner.load(checkpoint / "learner", version=state["step"])
        for name, part in self.stateful.items():
            part.restore(state[name])
        self.step = state["step"]
        return self.step

    def wait(self) -> None:
        """Waits until the last checkpoint is whole on disk. Raises its error, and Stalled after `timeout_s`."""
        self._wait(self.timeout_s)

    def metrics(self) -> dict[str, float]:
        """`time/checkpoint_s`: seconds that training has stood still for checkpoints since the last call.

        Raises the error of the checkpoint that is being written.
        """
        if self._writing and self._writing.done():
            self._writing.result()
        waited, self._waited_s = self._waited_s, 0.0
        return {"time/checkpoint_s": waited}

    def _wait(self, timeout_s: float) -> None:
        if self._writing is None:
            return
        if not futures.wait([self._writing], timeout_s).done:
            raise Stalled(
                f"checkpoint {self.folder}/step_{self.step:06d} was not written within {timeout_s:g} s "
                "(cluster.stall_timeout_s)"
            )
        self._writing.result()

    def _finish(self, partial: Path, target: Path) -> None:
        """Seals a checkpoint once all ranks have written, and removes all but the newest `keep`. Runs in a thread."""
        while not self.learner.saved():
            if self._end.wait(POLL_S):
                return
        seal(partial)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
        _sync(self.folder)
        checkpoints = _newest_first(self.folder)
        # Checkpoints newer than the target are broken: the run skipped them at resume.
        index = checkpoints.index(target)
        for unwanted in checkpoints[:index] + checkpoints[index + self.config.keep :]:
            shutil.rmtree(unwanted)


def newest_whole(folder: Path, warn: Callable[[str], None]) -> Path:
    """The newest checkpoint with a matching manifest. Raises RunFailed without any."""
    for candidate in _newest_first(folder):
        problem = first_fault(candidate)
        if problem is None:
            return candidate
        warn(f"checkpoint {candidate} is skipped: {problem}")
    raise RunFailed(f"no whole checkpoint in {folder}")


def seal(folder: Path) -> None:
    """Syncs every file to disk and writes the manifest: path -> size and SHA-256."""
    files = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": _digest(file, sync=True)}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps(files, indent=1))
    _digest(manifest, sync=True)
    for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        _sync(inner)


def first_fault(folder: Path) -> str | None:
    """The first difference between a checkpoint and the manifest, with the file's name; None for a whole checkpoint."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return f"{MANIFEST} is missing"
    try:
        files = json.loads(manifest.read_text())
    except ValueError as error:  # no JSON, or no UTF-8
        return f"{MANIFEST} is cut short ({error})"
    for name, entry in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != entry["bytes"]:
            return f"{name} has {file.stat().st_size} bytes, not {entry['bytes']}"
        if _digest(file) != entry["sha256"]:
            return f"{name} has other content than was saved"
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*"), reverse=True)


def _digest(file: Path, *, sync: bool = False) -> str:
    with file.open("rb") as stream:
        if sync:
            os.fsync(stream.fileno())
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
