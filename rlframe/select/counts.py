"""`NAME.counts.json` beside selected rows: what became of every line of the inputs, written and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rlframe.record.files import replace_file
from rlframe.select.config import SelectConfig
from rlframe.select.selection import KEPT, Decisions

if TYPE_CHECKING:
    from rich.table import Table

FORMAT = 1


def write_counts(config: SelectConfig, decisions: Decisions, written: int) -> Path:
    """Writes counts that add up: read = kept + the dropped of every reason, for each source and in all."""
    total = decisions.total
    content = {
        "format": FORMAT,
        "read": total.total(),
        "kept": total[KEPT],
        "dropped": {reason: count for reason, count in total.most_common() if reason != KEPT},
        "rows": written,
        "held_out": decisions.held_out,
        "sources": {source: dict(counts) for source, counts in decisions.counts.items()},
        "settings": config.model_dump(mode="json"),
    }
    path = Path(config.out).with_suffix(".counts.json")
    replace_file(path, json.dumps(content, indent=2, ensure_ascii=False).encode())
    return path


def table(decisions: Decisions) -> Table:
    """A line for each reason, with a column for each source beside the total where there are several."""
    from rich import box
    from rich.table import Table

    total = decisions.total
    columns = {"lines": total} | (decisions.counts if len(decisions.counts) > 1 else {})
    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("")
    for name in columns:
        shown.add_column(name, justify="right", overflow="fold")
    shown.add_column("share", justify="right")
    reasons = [KEPT, *(reason for reason, _ in total.most_common() if reason != KEPT)]
    for reason in reasons:
        counts = [str(column[reason]) for column in columns.values()]
        shown.add_row(reason, *counts, f"{total[reason] / max(1, total.total()):.1%}")
    shown.add_section()
    shown.add_row("read", *(str(column.total()) for column in columns.values()), "100.0%")
    return shown
