"""`write_rows` and `Lines`: rows on disk, in JSONL files and in the folders of part_*.jsonl that a stage writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from rlframe.rows.records import Row, record_of, row_of

PARTS = "part_*.jsonl"  # of a folder; a stage writes them one after the other


def write_rows(rows: Iterable[Row], path: Path) -> int:
    """Writes a row a line -> the number of rows. The file appears once it is whole."""
    count = 0
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(record_of(row), ensure_ascii=False) + "\n")
            count += 1
    temporary.replace(path)
    return count


def read_rows(path: Path) -> Iterator[Row]:
    """Every row of a JSONL file, or of a folder of parts, in order.

    Raises ValueError with file, line and field for a line that is no row, and for a path without rows.
    """
    found = False
    for file in files_of(path):
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.isspace():
                    found = True
                    yield _row(line, f"{file.name}:{number}", f"{file}, line {number}")
    if not found:
        raise ValueError(f"{path}: holds no row")


def files_of(path: Path) -> list[Path]:
    """The file itself, or the parts in a folder. Raises ValueError where there is neither."""
    if path.is_dir():
        if parts := sorted(path.glob(PARTS)):
            return parts
        raise ValueError(f"{path.resolve()}: the folder has no {PARTS}; name a file, or the folder that a stage wrote")
    if not path.is_file():
        raise ValueError(f"there is no file or folder {path.resolve()}")
    return [path]


def _row(line: bytes, row_id: str, where: str) -> Row:
    try:
        record = json.loads(line)
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"{where}: no JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{where}: {type(record).__name__} where an object should be")
    return row_of(record, row_id, where)
