"""Problems from a file of one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from rlframe.prompts.records import Records
from rlframe.types import Problem


class Jsonl(Records):
    """A JSONL file. Every record of the slice is read and checked before the run starts."""

    name: Literal["jsonl"]
    path: str  # from the working directory, or absolute; ~ is the home

    def load(self) -> list[Problem]:
        """Raises ValueError naming file, line and field: a line that is no JSON object, a field missing or not text."""
        file = Path(self.path).expanduser()
        if not file.is_file():
            raise ValueError(f"path: there is no file {file.resolve()}")
        with file.open(encoding="utf-8") as lines:
            # Blank lines are no records, but count as lines, as in an editor.
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
