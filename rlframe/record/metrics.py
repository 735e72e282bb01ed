"""`metrics.jsonl`, and the sinks that a step's numbers go to."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Protocol

from rlframe.record.files import replace_file


class Sink(Protocol):
    """Where metrics go: a file, a service, the terminal."""

    def log(self, step: int, metrics: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class JsonlSink:
    """One JSON object a line, `step` and `policy_version` first, on disk as soon as it is logged.

    A resumed run passes the step it stands at as `keep_through_step`: lines of later steps, which it will take
    again, and a last line torn by the crash are dropped.
    """

    def __init__(self, path: Path, keep_through_step: int | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if keep_through_step is not None and path.exists():
            replace_file(path, "".join(_lines_through(path, keep_through_step)).encode())
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        # One optimizer step makes one policy version, so where the metrics don't say, the version is the step.
        finite = {key: value if math.isfinite(value) else None for key, value in metrics.items()}  # JSON has no NaN
        self._file.write(json.dumps({"step": step, "policy_version": step} | finite) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _lines_through(path: Path, step: int) -> list[str]:
    """The lines of steps up to `step`. Raises ValueError at a broken line, unless it is the last: that one is torn."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            continue
        try:
            logged = json.loads(line)["step"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: no line of metrics: {line[:80]!r}") from error
        if logged <= step:
            kept.append(line)
    return kept
