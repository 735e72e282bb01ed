"""`reference.jsonl`: log-probabilities of rows by the reference, a line a row, which resumed runs read.

{"model": "9f2c...", "dtype": "bfloat16"}
{"row": "41aa...", "logprobs": [-53.2, -61.0]}
{"rows": 4096}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from rlframe.errors import ConfigError
from rlframe.record.files import read_json_lines, write_json_lines


class ReferenceSums:
    """The sum of the log-probabilities of each answer of a row, by the digest of the row's tokens."""

    def __init__(self, path: Path, model: str, dtype: str) -> None:
        """`model`: digest of the reference's folder; `dtype`: of its parameters.

        Raises ConfigError where the file is of another reference.
        """
        self.path = path
        header = {"model": model, "dtype": dtype}
        lines = read_json_lines(path) if path.exists() else []
        if lines and lines[0] != header:
            field, key = ("dtype", "learner.dtype") if lines[0].get("model") == model else ("model", "model.path")
            raise ConfigError(
                f"{key}: {path} holds log-probabilities by another reference ({field} {lines[0].get(field)}, and now "
                f"{header[field]}); resume with that run's {key}, or take another run_dir"
            )
        self._sums: dict[str, list[float]] = {line["row"]: line["logprobs"] for line in lines if "row" in line}
        self.rows = max((line["rows"] for line in lines if "rows" in line), default=0)  # of the stream that are done
        write_json_lines(path, lines or [header])  # without a last line that a crash has torn

    def __contains__(self, row: str) -> bool:
        return row in self._sums

    def of(self, row: str, name: str) -> list[float]:
        """[answers]. Raises ConfigError, with the row's name, where the file has no such row."""
        if row not in self._sums:
            raise ConfigError(
                f"rows: {name} has no log-probabilities by the reference in {self.path}, so rows or their template "
                "have changed since the run began; restore them, or take another run_dir"
            )
        return self._sums[row]

    def add(self, sums: Mapping[str, list[float]]) -> None:
        """Appends rows."""
        self._append({"row": row, "logprobs": values} for row, values in sums.items())
        self._sums |= sums

    def complete(self, rows: int) -> None:
        """Notes that the first `rows` rows of the run's stream are done."""
        self._append([{"rows": rows}])
        self.rows = rows

    def _append(self, lines: Iterable[dict[str, object]]) -> None:
        with self.path.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
