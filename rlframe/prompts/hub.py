"""Problems from a data set of the Hugging Face hub, or from a local folder of its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from rlframe.prompts.base import Problems
from rlframe.prompts.records import Records
from rlframe.prompts.table import Table

if TYPE_CHECKING:
    from datasets import Dataset


class Hub(Records):
    """A split that `datasets.load_dataset` can load."""

    name: Literal["hub"]
    path: str  # a hub id such as openai/gsm8k, or a local folder
    subset: str | None  # the data set's configuration, e.g. main; null: the only configuration
    split: str

    def load(self) -> Problems:
        """Raises ValueError for a data set that cannot be loaded, a missing field, a slice beyond the last row."""
        rows = load_split(self.path, self.subset, self.split)
        return Table(rows, f"{self.path}/{self.split}", self.columns, self.problem, self.bounds)


def load_split(path: str, subset: str | None, split: str) -> Dataset:
    """The records of a split. Raises ValueError for a data set that cannot be loaded."""
    from datasets import disable_progress_bars, load_dataset
    from datasets.exceptions import DatasetsError

    disable_progress_bars()  # they would tear the console's lines
    try:
        return load_dataset(path, name=subset, split=split)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        # OSError: no network, no such data set, no such folder; RuntimeError: a loading script
        raise ValueError(
            f"{path} ({split}): datasets cannot load it: {error} Without network use a folder, or a data set that is "
            "in the cache (HF_HOME) with HF_HUB_OFFLINE=1; HF_ENDPOINT names a mirror, and a gated data set needs "
            "HF_TOKEN. In place of a loading script use the Parquet files of its revision refs/convert/parquet"
        ) from error
