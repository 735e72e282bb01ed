"""`is_complete`: a run that has nothing left to do, found without starting any of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlframe.record.directory import RunDir
from rlframe.record.evaluations import read_evaluations
from rlframe.record.manifest import MANIFEST
from rlframe.record.metrics import last_step

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig


def is_complete(run: RunConfig) -> bool:
    """True if all steps are recorded, and the checkpoint and the evaluation after the last one are on disk."""
    files = RunDir(Path(run.run_dir))
    return (
        last_step(files.metrics) >= run.steps
        and (not run.checkpoint.every or any(step >= run.steps for step in _checkpoints(files.checkpoints)))
        and (not run.evaluate.every or any(row["step"] >= run.steps for row in read_evaluations(files.evaluations)))
    )


def _checkpoints(folder: Path) -> list[int]:
    """Steps of the checkpoints that are sealed."""
    return [int(path.name.removeprefix("step_")) for path in folder.glob("step_*") if (path / MANIFEST).is_file()]
