"""Problems from a file with one JSON object per line."""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from rlframe.prompts.base import Problems
from rlframe.prompts.records import Records

T = TypeVar("T")


class Jsonl(Records):
    """A JSONL file. The file stays on disk: a line is read and parsed when its problem is asked for."""

    name: Literal["jsonl"]
    path: str  # relative to the working directory, or absolute; ~ is the home folder

    def load(self) -> Problems:
        """Raises ValueError for a missing file, and for a slice beyond its last record."""
        file = Path(self.path).expanduser()
        if not file.is_file():
            raise ValueError(f"path: there is no file {file.resolve()}")
        return Lines(file, self.problem, self.bounds)


class Lines(Generic[T]):
    """Lines of a file as problems or rows, found by their byte offsets: 12 bytes of memory a line.

    A blank line is no record, but counts in line numbers, as in an editor. Accessing a line raises ValueError with
    file, line and field if the line is no JSON object, or a field is missing or cannot be used.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[Mapping[str, Any], str, str], T],
        bounds: Callable[[int, str], range] = lambda total, _: range(total),
    ) -> None:
        """`read` makes the value of a record, its id and its place. `bounds`: the lines in use, by their number."""
        self._path = str(path)
        self._name = path.name
        self._read = read
        self._file = path.open("rb")
        numbers, starts = array("I"), array("Q")  # of lines that are not blank: from 1 on, in bytes
        end = 0
        for number, line in enumerate(self._file, start=1):
            if not line.isspace():
                numbers.append(number)
                starts.append(end)
            end += len(line)
        indices = bounds(len(numbers), str(path))
        starts.append(end)
        self._numbers = numbers[indices.start : indices.stop]
        self._starts = starts[indices.start : indices.stop + 1]

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> T:
        start, end, number = self._starts[index], self._starts[index + 1], self._numbers[index]
        where = f"{self._path}, line {number}"
        try:
            # os.pread has no file position, so two threads can read at the same time.
            record = json.loads(os.pread(self._file.fileno(), end - start, start))
        except ValueError as error:  # of JSON or of UTF-8
            raise ValueError(f"{where}: no JSON: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"{where}: {type(record).__name__} where an object should be")
        return self._read(record, f"{self._name}:{number}", where)
