"""Lines that a run's console prints and another command reads: `rlframe jobs` and `rlframe stop` see nothing else.

   12/200   0.531     0.500 ...                        a row: step 12 of 200, with a mean reward of 0.531
! SIGTERM: stopped after step 12; checkpoint: /shared/runs/first/checkpoints/step_000012; go on with: ...
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROW = re.compile(r"^ *(\d+)/(\d+) +(-?\d+\.\d+|–) ", re.MULTILINE)  # of record/console.py
STOPPED = re.compile(r"stopped after step (\d+); checkpoint: (.+); go on with: ")
NO_CHECKPOINT = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRow:
    """The newest step that the console has printed."""

    step: int
    steps: int
    reward: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The end of a run that a signal has stopped."""

    step: int
    checkpoint: str | None  # its folder


def stopped_line(signal: str, step: int, checkpoint: Path | None, run_dir: Path, verb: str = "train") -> str:
    return (
        f"{signal}: stopped after step {step}; checkpoint: {checkpoint or NO_CHECKPOINT}; go on with: "
        f"rlframe {verb} resume={run_dir}"
    )


def read_stopped(text: str) -> Stopped | None:
    """The last stop in a run's output; None where there is none."""
    found = STOPPED.findall(text)
    if not found:
        return None
    step, checkpoint = found[-1]
    return Stopped(step=int(step), checkpoint=None if checkpoint == NO_CHECKPOINT else checkpoint)


def read_last_row(text: str) -> LastRow | None:
    """The last row in a run's output; None before the first step."""
    found = ROW.findall(text)
    if not found:
        return None
    step, steps, reward = found[-1]
    return LastRow(step=int(step), steps=int(steps), reward=reward)
