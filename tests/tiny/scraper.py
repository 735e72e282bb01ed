"""A thread that scrapes the metrics agent of this machine's node while a run goes on, as Prometheus does."""

from __future__ import annotations

import threading
import urllib.request
from contextlib import suppress

import ray
from prometheus_client.parser import text_string_to_metric_families

from rlframe.record.operator_metrics import METRICS, PREFIX


class Scraper:
    """A `with` block; `series` has the last value of each series of rlframe: name, then labels of rlframe."""

    def __init__(self) -> None:
        self.series: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Scraper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.series}

    def value(self, name: str, **labels: str) -> float | None:
        return self.series.get((name, frozenset(labels.items())))

    def _run(self) -> None:
        while not self._end.wait(0.5):
            with suppress(Exception):  # Ray has not started, or ends
                port = ray.nodes()[0]["MetricsExportPort"]
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                    self._note(answer.read().decode())

    def _note(self, text: str) -> None:
        tags = {"run", *(tag for metric in METRICS for tag in metric.tags)}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith(f"{PREFIX}rlframe_"):
                    labels = {name: value for name, value in sample.labels.items() if name in tags}
                    self.series[sample.name, frozenset(labels.items())] = sample.value
