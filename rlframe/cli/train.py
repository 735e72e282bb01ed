"""`rlframe train`: checks the composed config, or that of a run to resume, and starts the run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.cli import command_line
from rlframe.config import compose as config
from rlframe.config import environment
from rlframe.errors import ConfigError
from rlframe.record.directory import RunDir

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig

AUTO = "auto"  # of the key resume


def main(arguments: list[str]) -> int:
    """Runs every job of the command line; returns the worst exit code."""
    return command_line.run_jobs("train", arguments, _start)


def _start(composed: Any) -> None:
    from rlframe.train.completion import is_complete
    from rlframe.train.loop import train

    run = _checked(composed)
    if not run.resume:
        command_line.refuse_used_folder(run, f"go on with it by resume={run.run_dir}, or choose another folder")
    elif is_complete(run):
        print(f"The run in {run.run_dir} is complete: all {run.steps} steps are taken. A greater steps=N takes more.")
        return
    environment.provide(run.secrets)
    train(run)


def _checked(composed: Any) -> RunConfig:
    """The checked config of a job. With `resume`, the saved config of that run, updated by the command line."""
    from hydra.core.hydra_config import HydraConfig

    overrides = list(HydraConfig.get().overrides.task)
    run_dir = _run_to_resume(composed, overrides)
    if run_dir is not None:
        saved = run_dir / "config.yaml"
        if not saved.is_file():
            raise ConfigError(f"resume: {run_dir} holds no run: there is no {saved}")
        composed = config.merge_saved(saved, composed, overrides)
        composed.run_dir = str(run_dir)
    composed.resume = None if run_dir is None else str(run_dir)
    return config.load(composed)


def _run_to_resume(composed: Any, overrides: list[str]) -> Path | None:
    """The folder of the run that goes on; None: a new run. `auto` decides it by the files in `run_dir`."""
    if composed.resume != AUTO:
        return None if composed.resume is None else Path(composed.resume)
    if not any(override.startswith("run_dir=") for override in overrides):
        raise ConfigError(
            "resume: auto goes on with the run in run_dir, and the default folder is a new one each time; set "
            "run_dir=DIR, the same one each time"
        )
    files = RunDir(Path(composed.run_dir))
    return files.path if files.holds_a_run() else None
