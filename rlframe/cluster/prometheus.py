"""`Exporter`: sends the metrics for operators to the metrics agent of this node, where Prometheus scrapes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import ray
from ray.util.metrics import Counter, Gauge

from rlframe.record.operator_metrics import METRICS, RUN

if TYPE_CHECKING:
    from rlframe.record.operator_metrics import Series


class Exporter:
    """For one thread, while this process is connected to Ray. Ray sends the values about every ten seconds.

    A node without an agent, such as one of a minimal installation of Ray, drops them.
    """

    def __init__(self, run: str) -> None:
        """`run`: the value of the tag of that name."""
        self._metrics: dict[str, Counter | Gauge] = {}
        self._tag_names: dict[str, str | None] = {}  # name -> its tag besides `run`
        self._counted: dict[Series, float] = {}
        for metric in METRICS:
            [tag] = metric.tags or [None]
            kind = Counter if metric.kind == "counter" else Gauge
            self._metrics[metric.name] = kind(metric.name, metric.help, (RUN, tag) if tag else (RUN,))
            self._metrics[metric.name].set_default_tags({RUN: run})
            self._tag_names[metric.name] = tag

    @property
    def url(self) -> str:
        """Of this node's agent, which Prometheus scrapes; empty where the node has none."""
        mine = ray.get_runtime_context().get_node_id()
        node = next(node for node in ray.nodes() if node["NodeID"] == mine)
        port = node["MetricsExportPort"]
        return f"http://{node['NodeManagerAddress']}:{port}/metrics" if port else ""

    def send(self, values: Mapping[Series, float]) -> None:
        """Sets gauges, and brings counters to these totals."""
        for (name, tag), value in values.items():
            metric, tag_name = self._metrics[name], self._tag_names[name]
            tags = {tag_name: tag} if tag_name else {}
            if isinstance(metric, Gauge):
                metric.set(value, tags)
            elif (more := value - self._counted.get((name, tag), -1.0)) > 0:
                # Ray's `inc` refuses 0, and a counter that has no series cannot be told from a broken exporter.
                metric._record(min(more, value), tags)
                self._counted[name, tag] = value
