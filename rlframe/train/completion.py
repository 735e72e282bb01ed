"""`is_complete`: a run that has nothing left to do, found without starting any of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlframe.record.directory import RunDir
from rlframe.record.evaluations import read_evaluations
from rlframe.record.manifest import MANIFEST, first_fault
from rlframe.record.metrics import last_step

if TYPE_CHECKING:
    from rlframe.config.keys import SharedKeys


def is_complete(run: SharedKeys) -> bool:
    """True if all steps are recorded, and the checkpoint and the evaluation after the last one are on disk, whole.

    Reads all of that checkpoint. False for a tuning run whose epochs are not counted in steps yet.
    """
    if not run.counts_steps:
        return False
    files = RunDir(Path(run.run_dir))
    return (
        last_step(files.metrics) >= run.last_step
        and (not run.evaluation_every or any(step >= run.last_step for step in _evaluations(files.evaluations)))
        and (not run.checkpoint.every or _has_checkpoint(files.checkpoints, run.last_step))  # reads most
    )


def _evaluations(file: Path) -> list[float]:
    return [row["step"] for row in read_evaluations(file)]


def _has_checkpoint(folder: Path, last_step: int) -> bool:
    """Whether a whole checkpoint of the last step or a later one is on disk."""
    sealed = [manifest.parent for manifest in folder.glob(f"step_*/{MANIFEST}")]
    return any(int(path.name.removeprefix("step_")) >= last_step and first_fault(path) is None for path in sealed)
