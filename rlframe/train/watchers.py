"""`open_watchers`: the sinks of a run that also get evaluations. `metrics_sender`: the metrics for operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlframe.record.operator_metrics import values
from rlframe.record.wandb import WandbSink

if TYPE_CHECKING:
    from collections.abc import Callable

    from rlframe.config.run import RunConfig
    from rlframe.record.console import Console
    from rlframe.record.directory import RunDir
    from rlframe.record.metrics import Sink
    from rlframe.record.status import Status


def open_watchers(run: RunConfig, files: RunDir, console: Console) -> list[Sink]:
    """The console, and the trackers that the config names."""
    tracking = run.tracking
    if not tracking.wandb:
        return [console]
    return [console, WandbSink(files.path, run.written(), tracking.project, tracking.mode)]


def metrics_sender(files: RunDir) -> Callable[[Status], None]:
    """A function that sends a status to the node's metrics agent, for Prometheus."""
    from rlframe.cluster.prometheus import Exporter

    exporter = Exporter(files.path.name)
    return lambda status: exporter.send(values(status))
