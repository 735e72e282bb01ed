"""Problems from a data set of the Hugging Face hub, or from a local folder of its files."""

from __future__ import annotations

from typing import Literal

from rlframe.prompts.records import Records
from rlframe.types import Problem


class Hub(Records):
    """A split that `datasets.load_dataset` can load. Every record of the slice is checked before the run starts."""

    name: Literal["hub"]
    path: str  # a hub id such as openai/gsm8k, or a local folder
    subset: str | None  # the data set's configuration, e.g. main; null: the only configuration
    split: str

    def load(self) -> list[Problem]:
        """Raises ValueError with data set, row and field. Errors of `datasets` (no such data set) pass through."""
        from datasets import load_dataset

        rows = load_dataset(self.path, name=self.subset, split=self.split)
        where = f"{self.path} ({self.split})"
        for field in (self.prompt_field, self.reference_field):
            if field not in rows.column_names:
                raise ValueError(f"{where}: no field {field!r}; it has {', '.join(map(repr, rows.column_names))}")
        indices = self.bounds(len(rows), where)
        # Only the fields in use: another column may hold images or long texts, which would be decoded for nothing.
        fields = {self.prompt_field, self.reference_field, self.task_field} & set(rows.column_names)
        columns = rows.select(indices).select_columns(sorted(fields))
        return [
            self.problem(record, f"{self.path}/{self.split}/{index}", f"{where}, row {index}")
            for index, record in zip(indices, columns.to_list(), strict=True)
        ]
