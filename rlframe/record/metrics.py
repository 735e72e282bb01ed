"""`metrics.jsonl`, written and read, and the protocol of every sink of metrics."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Protocol

from rlframe.errors import RunFailed
from rlframe.record.files import read_json_lines, write_json_lines


class Sink(Protocol):
    """A receiver of a step's metrics: a file, a service, the terminal."""

    def log(self, step: int, metrics: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class JsonlSink:
    """Writes one JSON object a line, `step` and `policy_version` first. A logged line is in the file at once.

    A resumed run passes its restored step as `keep_through_step`. Lines of later steps, which the run will take again,
    and a torn last line are dropped.
    """

    def __init__(self, path: Path, keep_through_step: int | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if keep_through_step is not None and path.exists():
            logged = read_json_lines(path, "step")
            write_json_lines(path, [entry for entry in logged if entry["step"] <= keep_through_step])
        self._file = path.open("ab", buffering=0)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        # One optimizer step makes one policy version: metrics without a version have the step's number.
        finite = {key: value if math.isfinite(value) else None for key, value in metrics.items()}  # JSON has no NaN
        unwritten = (json.dumps({"step": step, "policy_version": step} | finite) + "\n").encode()
        try:
            while unwritten:
                unwritten = unwritten[self._file.write(unwritten) :]
        except OSError as error:
            raise RunFailed(
                f"{self._file.name} takes no metrics of step {step}: {error}. Free some space, and go on with resume="
            ) from error

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads one dict a step, in the order of steps. Several lines of one step are merged."""
    metrics: dict[int, dict[str, Any]] = {}
    for entry in read_json_lines(path, "step"):
        metrics.setdefault(entry["step"], {}).update(entry)
    return [metrics[step] for step in sorted(metrics)]


def last_step(path: Path) -> int:
    """The newest step of a file of metrics; 0 where there is none."""
    return max((entry["step"] for entry in read_json_lines(path, "step")), default=0) if path.exists() else 0
