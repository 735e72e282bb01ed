"""Checkpoints of a run: learner shards and the state of the driver's parts, under one manifest.

A checkpoint is copied to memory at once and written into a temporary folder while training goes on. Each rank says what
it wrote. Once the driver has read all of it, a manifest lists every file with size and hash, and the folder is renamed
last. A checkpoint with a manifest that does not match was cut short; such checkpoints are named and skipped.
"""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Protocol

from rlframe.errors import LearnerLost, RunFailed, Stalled
from rlframe.record.bounded import in_thread, within
from rlframe.record.manifest import WriteReport, first_fault, report_on, seal, sync_folder, unreadable

if TYPE_CHECKING:
    from rlframe.config.train import CheckpointConfig
    from rlframe.learner.group import LearnerGroup
    from rlframe.record.generation import Generation

FORMAT = 2  # of state.json
STATE = "state.json"
POLL_S = 0.2  # seconds between checks that all ranks have written; a rank answers after the current step
AFTER_ERROR_S = 60.0  # a failing run waits this long for a checkpoint in progress


class Stateful(Protocol):
    """A part of the driver whose state a checkpoint holds, as JSON values."""

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


class NotWritten(RunFailed):
    """A checkpoint that the disk did not take. Older checkpoints are as they were."""


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
        generation: Generation,
        *,
        timeout_s: float,
        warn: Callable[[str], None],
        on_commit: Callable[[int], None] = lambda step: None,
    ) -> None:
        """`stateful`: by the name that their state has in state.json. `timeout_s`: bound on a wait for the writing.

        `warn` gets lines for the console. `on_commit`: called in the writer's thread with the step of each checkpoint
        that is whole on disk.
        """
        self.config = config
        self.folder = folder
        self.learner = learner
        self.stateful = stateful
        self.generation = generation
        self.timeout_s = timeout_s
        self.warn = warn
        self.on_commit = on_commit
        self.step = 0  # of the newest checkpoint, whole or being written
        self._committed = 0  # step of the newest checkpoint that is whole
        self._waited_s = 0.0
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

    def check_folder(self) -> None:
        """Removes what earlier drivers left unfinished, and tries if this machine reads what ranks write.

        Raises RunFailed naming the ranks for which the folder is another one: checkpoints would lack their shards.
        """
        if not self.config.every:
            return
        within(self.timeout_s, f"tidy {self.folder}", self._tidy)
        marks = self.learner.leave_marks(self.folder)
        faults = [fault for mark in marks if (fault := _fault(mark))]
        for file in (file for mark in marks for file in mark.files):
            file.path.unlink(missing_ok=True)
        if faults:
            raise RunFailed(
                f"run_dir: ranks write their parts of a checkpoint into {self.folder}, and {'; '.join(faults)}. Use a "
                "folder that all machines share, or checkpoint.every=0"
            )

    @property
    def newest(self) -> Path | None:
        """The newest checkpoint that this driver knows to be whole; None before the first."""
        return self._target(self._committed) if self._committed else None

    def exist(self) -> bool:
        """True if the folder holds a checkpoint, whole or not."""
        return bool(_newest_first(self.folder))

    @property
    def busy(self) -> bool:
        """True while a checkpoint is being written."""
        return self._writing is not None and not self._writing.done()

    def save(self, step: int) -> None:
        """Starts the checkpoint of a step. On return training may go on. Raises the previous checkpoint's error."""
        start = time.monotonic()
        self._wait(self.timeout_s)
        self.generation.check()
        target = self._target(step)
        # A driver that was fenced must not touch the newer driver's folder.
        partial = self.folder / f".{target.name}.partial-{self.generation.number}"
        self.learner.save(partial / "learner", partial / "huggingface" if self.config.export else None)
        state = {name: part.state() for name, part in self.stateful.items()}
        content = json.dumps({"format": FORMAT, "step": step} | state)
        self.step = step
        self._writing = in_thread(f"checkpoint {step}", lambda: self._write(step, content, partial, target))
        self._waited_s += time.monotonic() - start

    def restore(self, warn: Callable[[str], None]) -> int:
        """Restores learner and parts from the newest whole checkpoint -> the step. `warn` gets skipped checkpoints.

        Raises RunFailed without a whole checkpoint, or if another version of rlframe wrote the checkpoint.
        """
        checkpoint = newest_whole(self.folder, warn)
        if checkpoint is None:
            raise RunFailed(f"no whole checkpoint in {self.folder}")
        return self._restore(checkpoint, self.stateful)

    def restore_learner(self, parts: Iterable[str]) -> int:
        """Restores new ranks and these parts from the newest whole checkpoint -> the step; 0 where there is none.

        Without a checkpoint the ranks keep the base model, and the parts their state.
        """
        checkpoint = newest_whole(self.folder, self.warn)
        return 0 if checkpoint is None else self._restore(checkpoint, parts)

    def settle(self) -> None:
        """Ends the writing of a checkpoint whose ranks are lost. A checkpoint that they wrote whole is kept."""
        with suppress(LearnerLost):
            self._wait(self.timeout_s)

    def wait(self) -> None:
        """Waits until the last checkpoint is whole on disk. Raises its error, and Stalled after `timeout_s`."""
        self._wait(self.timeout_s)

    def metrics(self) -> dict[str, float]:
        """`time/checkpoint_s`: seconds that training has stood still for checkpoints since the last call.

        Raises the error of the checkpoint that is being written.
        """
        if self._writing and self._writing.done():
            self._wait(self.timeout_s)
        waited, self._waited_s = self._waited_s, 0.0
        return {"time/checkpoint_s": waited}

    def _restore(self, checkpoint: Path, parts: Iterable[str]) -> int:
        state = json.loads((checkpoint / STATE).read_text())
        if state.get("format") != FORMAT:
            raise RunFailed(
                f"checkpoint {checkpoint} has format {state.get('format')}, and this version of rlframe reads format "
                f"{FORMAT}: resume with the version that wrote it, or start a new run from {checkpoint}/huggingface"
            )
        self.learner.load(checkpoint / "learner", version=state["step"])
        for name in parts:
            self.stateful[name].restore(state[name])
        self.step = self._committed = state["step"]
        return self.step

    def _wait(self, timeout_s: float) -> None:
        if self._writing is None:
            return
        if not futures.wait([self._writing], timeout_s).done:
            raise Stalled(
                f"checkpoint {self.folder}/step_{self.step:06d} was not written within {timeout_s:g} s "
                "(cluster.stall_timeout_s)"
            )
        writing, self._writing = self._writing, None
        writing.result()

    def _write(self, step: int, content: str, partial: Path, target: Path) -> None:
        """Commits a checkpoint once all ranks have written. Runs in a thread."""
        try:
            while (reports := self.learner.saved()) is None:
                if self._end.wait(POLL_S):
                    return
            self._commit([*reports, _write_state(partial, content)], partial, target)
        except BaseException as error:
            self.step = self._committed
            shutil.rmtree(partial, ignore_errors=True)
            self.generation.check()  # a newer driver has removed the folder
            if not isinstance(error, NotWritten) or self.config.on_error == "stop":
                raise
            self.warn(str(error))
        else:
            self._committed = step
            self.on_commit(step)

    def _commit(self, reports: list[WriteReport], partial: Path, target: Path) -> None:
        """Seals a checkpoint under its name, and removes all but the newest `keep`."""
        if errors := [f"{report.writer} on {report.host}: {report.error}" for report in reports if report.error]:
            raise NotWritten(
                f"checkpoint {target} was not written ({'; '.join(errors)}); older checkpoints stay. Free some space, "
                "or go on without this checkpoint: checkpoint.on_error=warn"
            )
        if faults := [fault for report in reports if (fault := _fault(report))]:
            raise RunFailed(
                f"checkpoint {target} is not whole on the driver's machine: {'; '.join(faults)}. Older checkpoints "
                "stay. Use a run_dir that all machines share"
            )
        try:
            seal(partial, [file for report in reports for file in report.files])
            self.generation.check()
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
            sync_folder(self.folder)
        except OSError as error:
            raise NotWritten(f"checkpoint {target} was not sealed: {error}; older checkpoints stay") from error
        checkpoints = _newest_first(self.folder)
        # Checkpoints newer than the target are broken: the run skipped them at resume.
        index = checkpoints.index(target)
        for unwanted in checkpoints[:index] + checkpoints[index + self.config.keep :]:
            shutil.rmtree(unwanted)

    def _target(self, step: int) -> Path:
        return self.folder / f"step_{step:06d}"

    def _tidy(self) -> None:
        for partial in self.folder.glob(".step_*.partial*"):
            shutil.rmtree(partial, ignore_errors=True)


def newest_whole(folder: Path, warn: Callable[[str], None]) -> Path | None:
    """The newest checkpoint with a matching manifest; None without any. `warn` gets skipped checkpoints."""
    for candidate in _newest_first(folder):
        problem = first_fault(candidate)
        if problem is None:
            return candidate
        warn(f"checkpoint {candidate} is skipped: {problem}")
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*"), reverse=True)


def _write_state(folder: Path, content: str) -> WriteReport:
    def write() -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STATE).write_text(content)
        return [folder / STATE]

    return report_on("the driver", write)


def _fault(report: WriteReport) -> str | None:
    """The difference between the words of a writer and the files that this machine reads; None where there is none."""
    if report.error:
        return f"{report.writer} on {report.host} cannot write there: {report.error}"
    for file in report.files:
        if problem := unreadable(file):
            here = socket.gethostname()
            return f"{report.writer} on {report.host} wrote {file.path}, and the driver on {here} {problem}"
    return None
