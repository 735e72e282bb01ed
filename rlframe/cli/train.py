"""`rlframe train`: checks the composed config, or that of a run to resume, and starts the run."""

from __future__ import annotations

from typing import Any

from rlframe.cli import command_line
from rlframe.config.run import RunConfig


def main(arguments: list[str]) -> int:
    """Runs every job of the command line; returns the worst exit code."""
    return command_line.run_jobs("train", arguments, _start)


def _start(composed: Any) -> None:
    from rlframe.train.loop import train

    command_line.start_or_go_on(composed, RunConfig, train)
