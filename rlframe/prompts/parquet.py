"""Problems from Parquet files."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Literal

from rlframe.prompts.base import Problems
from rlframe.prompts.records import Records
from rlframe.prompts.table import ROWS_AT_A_TIME, Table, columns


class Parquet(Records):
    """Parquet files as one table, in the order of their names.

    `datasets` writes the columns in use once into its cache (HF_DATASETS_CACHE), as files that are mapped into memory.
    """

    name: Literal["parquet"]
    path: str  # a file or a pattern such as data/train-*.parquet; ~ is the home folder

    def load(self) -> Problems:
        """Raises ValueError for missing files, a file that is no Parquet, a missing field, a slice beyond the end."""
        import pyarrow
        from datasets import Dataset, disable_progress_bars
        from datasets.exceptions import DatasetsError
        from pyarrow import parquet

        files = sorted(glob.glob(str(Path(self.path).expanduser()), recursive=True))
        if not files:
            raise ValueError(f"path: there is no file {Path(self.path).expanduser().resolve()}")
        try:
            schema = parquet.read_schema(files[0])
        except (pyarrow.ArrowInvalid, OSError) as error:
            hint = f"; for the files of a folder give {self.path}/*.parquet" if Path(files[0]).is_dir() else ""
            raise ValueError(f"{files[0]}: no Parquet file: {error}{hint}") from error
        in_use = columns(schema, self.fields(), self.path)
        disable_progress_bars()  # they would tear the console's lines
        # Without a batch size datasets reads a row group at a time, which may be the whole file.
        try:
            rows = Dataset.from_parquet([*files], columns=in_use, batch_size=ROWS_AT_A_TIME)
        except DatasetsError as error:
            raise ValueError(f"{self.path}: datasets cannot read its files as one table: {error}") from error
        return Table(rows, self, Path(self.path).name)
