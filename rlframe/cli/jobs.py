"""`rlframe jobs`: the submitted runs of a cluster, with the step and the reward of each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rlframe.cli import exits, remote

if TYPE_CHECKING:
    from rlframe.cluster.jobs import Job, Jobs

USAGE = """rlframe jobs [--address http://head:8265] [--allow-open]

Lists the runs that `rlframe submit` has sent to a Ray cluster: id, folder of the run, step, reward, state, and the time
since when the job has been in this state. --allow-open: also of another machine's cluster that asks for no token.
"""
HEADLINE = "The jobs cannot be listed"
HEADINGS = ("job", "run", "step", "reward", "state", "since")


def main(arguments: list[str]) -> int:
    """Prints the table; returns the exit code."""
    return remote.answered(USAGE, HEADLINE, arguments, _list)


def _list(arguments: list[str]) -> int:
    option, arguments = remote.take_option(arguments, remote.ADDRESS)
    allow_open, arguments = remote.take_flag(arguments, "--allow-open")
    if arguments:
        return exits.refuse("rlframe jobs", USAGE)
    jobs = remote.connect(remote.address(option), allow_open=allow_open)
    rows = [_row(jobs, job) for job in jobs.all()]
    if not rows:
        print(f"{jobs.address} has no job of rlframe's")
        return 0
    widths = [max(map(len, column)) for column in zip(HEADINGS, *rows, strict=True)]
    for row in [HEADINGS, *rows]:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _row(jobs: Jobs, job: Job) -> tuple[str, ...]:
    last = jobs.last_row(job)
    step, reward = (f"{last.step}/{last.steps}", last.reward) if last else ("–", "–")
    return job.id, job.run_dir, step, reward, job.state.lower(), _age(time.time() - job.since)


def _age(seconds: float) -> str:
    """
    >>> _age(42), _age(3700), _age(200_000)
    ('42 s', '1 h 1 min', '2 d 7 h')
    """
    for unit, size, smaller, smaller_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} {int(seconds % size // smaller_size)} {smaller}"
    return f"{int(seconds)} s"
