"""Problems from a file with one JSON object per line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from rlframe.prompts.records import Records
from rlframe.types import Problem


class Jsonl(Records):
    """A JSONL file. Every record of the slice is read and checked before the run starts."""

    name: Literal["jsonl"]
    path: str  # relative to the working directory, or absolute; ~ is the home folder

    def load(self) -> list[Problem]:
        """Raises ValueError with file, line and field if a line is no JSON object or a field is missing or not text."""
        file = Path(self.path).expanduser()
        if not file.is_file():
            raise ValueError(f"path: there is no file {file.resolve()}")
        with file.open(encoding="utf-8") as lines:
            # A blank line is no record, but counts in line numbers, as in an editor.
            records = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        return [self._parse(*records[index], file) for index in self.bounds(len(records), str(file))]

    def _parse(self, number: int, line: str, file: Path) -> Problem:
        where = f"{file}, line {number}"
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: no JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"{where}: {type(record).__name__} where an object should be")
        return self.problem(record, f"{file.name}:{number}", where)
