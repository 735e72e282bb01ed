"""`is_complete`: a run that has nothing left to do, found without starting any of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlframe.record.directory import RunDir
from rlframe.record.evaluations import read_evaluations
from rlframe.record.manifest import MANIFEST
from rlframe.record.metrics import last_step

if TYPE_CHECKING:
    from rlframe.config.keys import SharedKeys


def is_complete(run: SharedKeys) -> bool:
    """True if all steps are recorded, and the checkpoint and the evaluation after the last one are on disk.

    False for a tuning run whose epochs are not counted in steps yet.
    """
    if not run.counts_steps:
        return False
    files = RunDir(Path(run.run_dir))
    return (
        last_step(files.metrics) >= run.last_step
        and (not run.checkpoint.every or any(step >= run.last_step for step in _checkpoints(files.checkpoints)))
        and (not run.evaluation_every or any(step >= run.last_step for step in _evaluations(files.evaluations)))
    )


def _evaluations(file: Path) -> list[float]:
    return [row["step"] for row in read_evaluations(file)]


def _checkpoints(folder: Path) -> list[int]:
    """Steps of the checkpoints that are sealed."""
    return [int(path.name.removeprefix("step_")) for path in folder.glob("step_*") if (path / MANIFEST).is_file()]
