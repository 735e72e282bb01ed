"""Saves and restores a run: learner shards, prompt position, experience ledger, under one manifest.

A checkpoint is copied to memory at once, then written aside while training goes on, listed with sizes and hashes in
a manifest, synced, and renamed last. One whose manifest does not hold was cut short: it is named and passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from rlframe.errors import RunFailed, Stalled

if TYPE_CHECKING:
    from rlframe.config.train import CheckpointConfig
    from rlframe.experience.flow import Experience
    from rlframe.learner.group import LearnerGroup
    from rlframe.rollout.pool import RolloutPool

MANIFEST = "manifest.json"
STATE = "state.json"
POLL_S = 0.2  # between two questions whether the ranks have written; each waits for the step that they are at
AFTER_ERROR_S = 60.0  # that a run which fails waits for a checkpoint that is being written


class Checkpoints:
    """A run's checkpoints, each written while training goes on; a second one waits for the first.

    Leaving it waits for the last one; an error that ends the run meanwhile is not kept waiting for long, and a
    signal, which has waited already where it could, not at all.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        folder: Path,
        learner: LearnerGroup,
        experience: Experience,
        step: int,
        timeout_s: float,
    ) -> None:
        """`step`: at which the run stands; `timeout_s`: that one may take once it is waited for."""
        self.config = config
        self.folder = folder
        self.learner = learner
        self.experience = experience
        self.step = step  # of the newest
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

    def save(self, step: int) -> None:
        """Begins step_000012; once it returns, the run may go on. Raises what ended the one before."""
        began = time.monotonic()
        self._wait(self.timeout_s)
        target = self.folder / f"step_{step:06d}"
        aside = self.folder / f".{target.name}.partial"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        self.learner.save(aside / "learner", aside / "huggingface" if self.config.export else None)
        (aside / STATE).write_text(json.dumps({"step": step, "experience": self.experience.state()}))
        self._writing = self._writer.submit(self._finish, aside, target)
        self.step = step
        self._waited_s += time.monotonic() - began

    def wait(self) -> None:
        """Until the last one is whole on disk. Raises what ended it, Stalled where it takes too long."""
        self._wait(self.timeout_s)

    def metrics(self) -> dict[str, float]:
        """`time/checkpoint_s`: seconds that training stood still for checkpoints since the last call.

        Raises what ended the one that is being written.
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

    def _finish(self, aside: Path, target: Path) -> None:
        """Once all ranks have written, makes it whole, and removes all but the newest `keep` of all. In a thread."""
        while not self.learner.saved():
            if self._end.wait(POLL_S):
                return
        seal(aside)
        if target.exists():
            shutil.rmtree(target)
        aside.rename(target)
        _sync(self.folder)
        found = _newest_first(self.folder)
        here = found.index(target)  # newer ones are broken: this run passed over them when it resumed
        for unwanted in found[:here] + found[here + self.config.keep :]:
            shutil.rmtree(unwanted)


def restore(
    folder: Path, learner: LearnerGroup, experience: Experience, rollouts: RolloutPool, warn: Callable[[str], None]
) -> int:
    """Continues from the newest whole checkpoint -> its step. Names each one that is passed over to `warn`.

    Raises RunFailed when there is none.
    """
    found = newest_whole(folder, warn)
    state = json.loads((found / STATE).read_text())
    learner.load(found / "learner", version=state["step"])
    experience.restore(state["experience"])
    rollouts.update(learner.weights(), version=state["step"])
    return state["step"]


def newest_whole(folder: Path, warn: Callable[[str], None]) -> Path:
    """The newest checkpoint whose manifest holds. Raises RunFailed when there is none."""
    for candidate in _newest_first(folder):
        problem = fault(candidate)
        if problem is None:
            return candidate
        warn(f"checkpoint {candidate} is passed over: {problem}")
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


def fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, naming the file; None when it is whole."""
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
