"""`RunDir`: the names of a run's files, and the wait for a file of another machine."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

from rlframe.errors import ConfigError
from rlframe.record.bounded import within

SHARED_FILE_S = 5.0  # in which a machine must see a new file of another machine
TRIAL_S = 60.0  # for a disk to take the first bytes of a run
TRIAL_BYTES = 4096
LOOKS = 10  # for the file, within SHARED_FILE_S


class RunDir:
    """A run's folder on this machine, or on a file system that all of its machines share."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().resolve()
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.evaluations = self.path / "evaluations.jsonl"
        self.evaluation_rollouts = self.path / "evaluations"  # a folder for each held-out set
        self.rollouts = self.path / "rollouts"
        self.checkpoints = self.path / "checkpoints"
        self.reference = self.path / "reference.jsonl"  # of a tuning run that compares with the base model
        self.row_total = self.path / "rows.json"  # of a tuning run of epochs
        self.curves = self.path / "curves.png"
        self.ledger = self.path / "ledger"  # the log of prompts, from which a run goes on after a death
        self.logs = self.path / "logs"  # a file for each actor's output
        self.status = self.path / "status.json"  # of the run as of now, or when it died
        self.requests = self.path / "requests"  # of other commands to the run, such as `rlframe scale`
        self.generations = self.path / "generations"  # a file for each driver that has held the run

    def holds_a_run(self) -> bool:
        return self.config.exists() or self.metrics.exists() or any(self.checkpoints.glob("step_*"))

    def create(self) -> None:
        """Makes the run's folders, and tries to write there.

        Raises ConfigError where this machine cannot write, and Stalled where the disk does not answer.
        """
        try:
            within(TRIAL_S, f"write into run_dir {self.path}", self._create)
        except OSError as error:
            problem = f"run_dir: this machine cannot write into {self.path}: {error}; choose another folder"
            raise ConfigError(problem) from error

    def _create(self) -> None:
        for folder in (self.path, self.rollouts, self.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=self.path) as trial:
            trial.write(bytes(TRIAL_BYTES))
            trial.flush()
            os.fsync(trial.fileno())


async def appears(file: Path) -> bool:
    """True if this machine sees a file that another machine has just made. A network file system may show it late."""
    for _ in range(LOOKS):
        if file.exists():
            return True
        await asyncio.sleep(SHARED_FILE_S / LOOKS)
        with suppress(OSError):
            os.listdir(file.parent)  # lets NFS ask its server anew
    return file.exists()
