"""Problems from Parquet files."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlframe.prompts.base import Problems
from rlframe.prompts.records import Records
from rlframe.prompts.table import ROWS_AT_A_TIME, Table

if TYPE_CHECKING:
    import pyarrow
    from datasets import Dataset


class Parquet(Records):
    """Parquet files as one table, in the order of their names.

    `datasets` writes the columns in use once into its cache (HF_DATASETS_CACHE), as files that are mapped into memory.
    """

    name: Literal["parquet"]
    path: str  # a file or a pattern such as data/train-*.parquet; ~ is the home folder

    def load(self) -> Problems:
        """Raises ValueError for missing files, a file that is no Parquet, a missing field, a slice beyond the end."""
        rows = load_files(self.path, self.columns)
        return Table(rows, Path(self.path).name, self.columns, self.problem, self.bounds)


def load_files(path: str, columns_of: Callable[[pyarrow.Schema, str], list[str]]) -> Dataset:
    """The records of a file, or of the files of a pattern, with the columns in use.

    Raises ValueError for missing files, a file that is no Parquet, and as `columns_of` does.
    """
    import pyarrow
    from datasets import Dataset, disable_progress_bars
    from datasets.exceptions import DatasetsError
    from pyarrow import parquet

    files = sorted(glob.glob(str(Path(path).expanduser()), recursive=True))
    if not files:
        raise ValueError(f"path: there is no file {Path(path).expanduser().resolve()}")
    try:
        schema = parquet.read_schema(files[0])
    except (pyarrow.ArrowInvalid, OSError) as error:
        hint = f"; for the files of a folder give {path}/*.parquet" if Path(files[0]).is_dir() else ""
        raise ValueError(f"{files[0]}: no Parquet file: {error}{hint}") from error
    in_use = columns_of(schema, path)
    disable_progress_bars()  # they would tear the console's lines
    # Without a batch size datasets reads a row group at a time, which may be the whole file.
    try:
        return Dataset.from_parquet([*files], columns=in_use, batch_size=ROWS_AT_A_TIME)
    except DatasetsError as error:
        raise ValueError(f"{path}: datasets cannot read its files as one table: {error}") from error
