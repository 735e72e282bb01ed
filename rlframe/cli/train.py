"""`rlframe train`: checks the composed config, or that of a run to resume, and starts the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.cli import jobs
from rlframe.config import compose as config
from rlframe.errors import ConfigError

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig


def main(arguments: list[str]) -> int:
    """Runs every job of the command line; returns the worst exit code."""
    return jobs.run_jobs("train", arguments, _start)


def _start(composed: Any) -> None:
    from rlframe.train.loop import train

    run = _checked(composed)
    if not run.resume:
        jobs.refuse_used_folder(run, f"go on with it by resume={run.run_dir}, or choose another folder")
    train(run)


def _checked(composed: Any) -> RunConfig:
    """The checked config of a job. With `resume`, the saved config of that run, updated by the command line."""
    from hydra.core.hydra_config import HydraConfig

    if composed.resume is not None:
        saved = Path(composed.resume) / "config.yaml"
        if not saved.is_file():
            raise ConfigError(f"resume: {composed.resume} holds no run: there is no {saved}")
        composed = config.merge_saved(saved, composed, list(HydraConfig.get().overrides.task))
        composed.run_dir = composed.resume
    return config.load(composed)
