"""Problems from a data set of the Hugging Face hub, or from a local folder of its files."""

from __future__ import annotations

from typing import Literal

from rlframe.prompts.base import Problems
from rlframe.prompts.records import Records
from rlframe.prompts.table import Table


class Hub(Records):
    """A split that `datasets.load_dataset` can load."""

    name: Literal["hub"]
    path: str  # a hub id such as openai/gsm8k, or a local folder
    subset: str | None  # the data set's configuration, e.g. main; null: the only configuration
    split: str

    def load(self) -> Problems:
        """Raises ValueError for a data set that cannot be loaded, a missing field, a slice beyond the last row."""
        from datasets import disable_progress_bars, load_dataset
        from datasets.exceptions import DatasetsError

        disable_progress_bars()  # they would tear the console's lines
        try:
            rows = load_dataset(self.path, name=self.subset, split=self.split)
        except (OSError, ValueError, DatasetsError) as error:  # OSError: no network, no such data set, no such folder
            raise ValueError(
                f"{self.path} ({self.split}): datasets cannot load it: {error} Without network use a folder, or a "
                "data set that is in the cache (HF_HOME) with HF_HUB_OFFLINE=1; HF_ENDPOINT names a mirror, and a "
                "gated data set needs HF_TOKEN"
            ) from error
        return Table(rows, self, f"{self.path}/{self.split}")
