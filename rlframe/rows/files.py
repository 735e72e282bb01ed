"""`write_rows` and `read_rows`: rows on disk, in JSONL files and in folders of part_*.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from rlframe.rows.records import record_of
from rlframe.rows.sources import Files, in_order
from rlframe.rows.types import Row


def write_rows(rows: Iterable[Row], path: Path) -> int:
    """Writes a row a line -> the number of rows. The file appears once it is whole."""
    count = 0
    temporary = path.with_name(path.name + ".tmp")
    try:
        # UTF-8 has no lone surrogate, which a model may sample; a backslash escape of it is JSON.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            for row in rows:
                file.write(json.dumps(record_of(row), ensure_ascii=False) + "\n")
                count += 1
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # of rows that could not be made
    return count


def read_rows(path: Path) -> Iterator[Row]:
    """Every row of a JSONL file, of a folder of parts, or of Parquet files, in order.

    Raises ValueError with file, line and field for a line that is no row, and for a path without files.
    """
    return in_order(Files(path=str(path)).load())
