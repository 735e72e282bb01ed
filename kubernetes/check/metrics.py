"""Every metric in an alert rule or a dashboard exists, with the labels and values that are asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from kubernetes.check.problem import Manifest, Problem, of_kind, title
from rlframe.record.operator_metrics import METRICS
from rlframe.record.operator_metrics import RUN as TAG

# Metrics of a run as they are scraped -> labels and their values. Prometheus adds the labels of SCRAPED.
RUN = {metric.scraped: metric.tags for metric in METRICS}
SCRAPED = {TAG, "namespace", "pod", "ray_io_cluster", "ray_io_group", "instance", "job"}
NAME = re.compile(r"\b(ray_\w+|rlframe_\w+)\b(?:\{([^}]*)\})?")
LABEL = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def check(manifests: list[Manifest]) -> Iterator[Problem]:
    for manifest in of_kind(manifests, "PrometheusRule"):
        for group in manifest["spec"].get("groups") or []:
            for rule in group.get("rules") or []:
                where = f"{title(manifest)} {rule.get('alert') or rule.get('record')}"
                for text in faults(rule.get("expr", "")):
                    yield Problem(where=where, text=text, rule="metrics/alert")
                if "alert" in rule and not {"summary"} <= {*(rule.get("annotations") or {})}:
                    yield Problem(where=where, text="has no annotation summary", rule="metrics/alert")
    for manifest in of_kind(manifests, "ConfigMap"):
        if "grafana_dashboard" not in (manifest["metadata"].get("labels") or {}):
            continue
        for file, text in (manifest.get("data") or {}).items():
            where = f"{title(manifest)} {file}"
            try:
                dashboard = json.loads(text)
            except json.JSONDecodeError as error:
                yield Problem(where=where, text=f"is no JSON: {error}", rule="metrics/dashboard")
                continue
            for panel, expression in expressions(dashboard):
                for fault in faults(expression):
                    yield Problem(where=f"{where} {panel}", text=fault, rule="metrics/dashboard")


def expressions(dashboard: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(panel or variable, PromQL) of a Grafana dashboard."""
    for panel in dashboard.get("panels", []):
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for variable in dashboard.get("templating", {}).get("list", []):
        if variable["type"] == "query":
            yield variable["name"], variable["query"]


def faults(expression: str) -> Iterator[str]:
    """Faults in the metrics of a PromQL expression, such as "no run exports a metric ray_rlframe_steps"."""
    if any(expression.count(left) != expression.count(right) for left, right in ("()", "{}", "[]")):
        yield f"brackets do not match in {expression!r}"
    names = [(name, labels) for name, labels in NAME.findall(expression) if not name.startswith("ray_io_")]
    if not names:
        yield f"no metric in {expression!r}"
    for name, labels in names:
        known = RUN.get(name)
        if known is None:
            yield f"no run exports a metric {name}"
            continue
        for label, operator, value in LABEL.findall(labels):
            if label not in known and label not in SCRAPED:
                yield f"{name} has no label {label}"
            elif operator == "=" and (values := known.get(label)) and value not in values:
                yield f"{name} has no {label}={value}; there are {', '.join(sorted(values))}"
