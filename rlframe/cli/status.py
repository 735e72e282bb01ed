"""`rlframe status RUN`: what a run does and waits for, from its files, also after it died."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from rlframe.cli import exits
from rlframe.record.directory import RunDir
from rlframe.record.outages import Outages
from rlframe.record.status import Status, read_status

USAGE = "usage: rlframe status RUN_DIR"
LATE_S = 10.0  # since the last write, which a driver makes every 2 s
FIGURES = ("reward/mean", "loss", "time/step_s")  # of the last step


def main(arguments: list[str]) -> int:
    """Prints the status; returns the exit code."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        return exits.refuse("rlframe status", USAGE)
    files = RunDir(Path(arguments[0]))
    try:
        status = read_status(files.status)
    except (OSError, ValueError) as error:
        return exits.refuse("There is no status", _why(files, error))
    print("\n".join(describe(files.path, status)))
    return 0


def describe(path: Path, status: Status) -> list[str]:
    """The lines of a status for a person."""
    lines = [f"{path}: {status.state}, step {status.step} of {status.steps}"]
    generation = "" if status.generation is None else f", generation {status.generation}"
    lines.append(f"driver: process {status.pid} on {status.host}{generation}; {_life(path, status)}")
    if status.reason:
        lines.append(f"reason: {status.reason}")
    if status.state in ("starting", "running"):
        lines += [f"driver: {status.doing}"] if status.doing else []
        lines += [f"waits for {wait.text}, for {wait.seconds:.0f} s" for wait in status.waits]
        lines += status.lines()
    figures = {name: value for name in FIGURES if (value := status.metrics.get(name)) is not None}
    if figures:
        lines.append("last step: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    if status.metrics_url and status.state == "running":
        lines.append(f"metrics for Prometheus: {status.metrics_url}")
    if any(status.outages.losses.values()):
        lines.append(_losses(status.outages))
    return lines


def _losses(outages: Outages) -> str:
    """
    >>> _losses(Outages(losses={"engine": 2, "learner": 0}, recoveries={"engine": 1}, seconds=100.0, lost_s=7.0))
    'lost since the first start: engine 2 (1 replaced); effective time 0.93'
    """
    counts = {role: count for role, count in outages.losses.items() if count}
    lost = ", ".join(f"{role} {count} ({outages.recoveries.get(role, 0)} replaced)" for role, count in counts.items())
    return f"lost since the first start: {lost}; effective time {outages.effective_time:.2f}"


def _life(path: Path, status: Status) -> str:
    """Says whether the driver still writes, and else what has become of it."""
    silent_s = time.time() - status.time
    if status.state not in ("starting", "running"):
        return f"it ended {silent_s:.0f} s ago"
    here = status.host == socket.gethostname()
    silence = f"it has not written for {silent_s:.0f} s"
    if here and not _lives(status):
        return f"{silence}, and the process is gone; what follows is its last word. Go on: rlframe train resume={path}"
    if silent_s < LATE_S:
        return f"it wrote {silent_s:.0f} s ago"
    if not here:
        return f"{silence}: look on {status.host} whether the process lives"
    return f"{silence}, but the process lives: it is stopped, or cannot write {path}"


def _lives(status: Status) -> bool:
    """True if the driver's process runs on this machine; another process may have its number by now."""
    import psutil

    try:
        return psutil.Process(status.pid).create_time() <= status.started
    except psutil.Error:
        return False


def _why(files: RunDir, error: Exception) -> str:
    if not files.path.is_dir():
        return f"{files.path}: there is no such folder; give the run_dir of a run"
    if isinstance(error, ValueError):
        first = str(error).splitlines()[0]
        return f"{files.status}: the file is no status of this version of rlframe ({first}); use the version of the run"
    if files.holds_a_run():
        return f"{files.path}: an older version of rlframe wrote no {files.status.name}; see metrics.jsonl"
    return f"{files.path}: the folder holds no run: there is no {files.status.name}; give the run_dir of a run"
