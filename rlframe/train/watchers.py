"""`open_watchers`: the sinks of a run that also get evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlframe.record.wandb import WandbSink

if TYPE_CHECKING:
    from rlframe.config.keys import SharedKeys
    from rlframe.record.console import Console
    from rlframe.record.directory import RunDir
    from rlframe.record.metrics import Sink


def open_watchers(run: SharedKeys, files: RunDir, console: Console) -> list[Sink]:
    """The console, and the trackers that the config names."""
    tracking = run.tracking
    if not tracking.wandb:
        return [console]
    return [console, WandbSink(files.path, run.written(), tracking.project, tracking.mode)]
