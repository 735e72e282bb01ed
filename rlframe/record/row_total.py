"""`rows.json`: the rows that the epochs of a tuning run take in all, as the run's first start has counted them.

    {"epochs": 2.0, "epoch_rows": 60000, "total": 119402}

A start encodes rows for a minute only, and estimates the share of rows that are too long. Without the file a resumed
run would estimate another share, and so take another number of steps, at other learning rates.
"""

from __future__ import annotations

import json
from pathlib import Path

from rlframe.record.files import replace_file


def keep_total(path: Path, *, epochs: float, epoch_rows: int, total: int) -> int:
    """The total of an earlier start with equal epochs of equally many rows; else `total`, which the file then keeps."""
    counted = {"epochs": epochs, "epoch_rows": epoch_rows}
    kept = json.loads(path.read_text()) if path.exists() else {}
    if {key: kept.get(key) for key in counted} == counted:
        return int(kept["total"])
    replace_file(path, json.dumps(counted | {"total": total}).encode())
    return total
