"""Schemas: core kinds strictly, KubeRay's kinds against its CustomResourceDefinitions, their CEL rules included."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kubernetes.check.problem import Manifest, Problem, title

KUBERNETES = "1.37"
QUANTITY = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+|[numkMGTPE]|[KMGTPE]i)?$")
KUBERAY = {"RayCluster", "RayJob"}
# Kinds of other operators, of which no schema is at hand: keys of their spec that these manifests may use.
OTHERS = {
    "PodMonitor": {"selector", "podMetricsEndpoints", "namespaceSelector", "jobLabel", "podTargetLabels"},
    "PrometheusRule": {"groups"},
    "LocalQueue": {"clusterQueue"},
}


def check(manifests: list[Manifest], definitions: Path | None) -> Iterator[Problem]:
    """Problems of each object with the schema of its kind. Without `definitions` KubeRay's kinds are left out."""
    for manifest in manifests:
        kind = manifest.get("kind", "")
        if kind in KUBERAY:
            yield from _kuberay(manifest, definitions) if definitions else ()
        elif kind in OTHERS:
            for key in sorted({*(manifest.get("spec") or {})} - OTHERS[kind]):
                yield Problem(where=f"{title(manifest)} spec.{key}", text="there is no such field", rule="schema")
        else:
            yield from _core(json.dumps(manifest))


@cache
def _core(text: str) -> list[Problem]:
    """Problems of a core object, given as JSON: overlays share most of these."""
    import jsonschema
    import kubernetes_validate

    manifest = json.loads(text)
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except jsonschema.ValidationError as error:
        where = f"{title(manifest)} {_path(error.absolute_path)}"
        return [Problem(where=where, text=error.message[:300], rule="schema")]
    except kubernetes_validate.SchemaNotFoundError:
        text = f"there is no kind {manifest.get('kind')} in {manifest.get('apiVersion')} of Kubernetes {KUBERNETES}"
        return [Problem(where=title(manifest), text=text, rule="schema")]
    return []


def _kuberay(manifest: Manifest, definitions: Path) -> Iterator[Problem]:
    schema, validator = _definition(manifest["kind"], manifest.get("apiVersion", ""), definitions)
    if validator is None:
        text = f"KubeRay has no {manifest.get('apiVersion')} of this kind; use ray.io/v1"
        yield Problem(where=title(manifest), text=text, rule="schema")
        return
    for error in validator.iter_errors(manifest):
        where = f"{title(manifest)} {_path(error.absolute_path)}"
        yield Problem(where=where, text=error.message[:300], rule="schema")
    for path, text in cel_failures(manifest, schema):
        yield Problem(where=f"{title(manifest)} {path}", text=text, rule="schema-cel")


@cache
def _definition(kind: str, api_version: str, definitions: Path) -> tuple[dict[str, Any], Any]:
    import jsonschema

    path = definitions / f"ray.io_{kind.lower()}s.yaml"
    document = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)["spec"]
    for version in document["versions"]:
        if f"{document['group']}/{version['name']}" == api_version:
            schema = version["schema"]["openAPIV3Schema"]
            return schema, jsonschema.Draft202012Validator(closed(copy.deepcopy(schema)))
    return {}, None


def closed(schema: Any) -> Any:
    """An OpenAPI schema of a CRD as JSON schema, as the API server reads it.

    Unknown fields are refused, fields with a default are not required, amounts and ports may be numbers or texts.
    """
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        amount = [{"type": "number"}, {"type": "string", "pattern": QUANTITY.pattern}]
        port = [{"type": "integer"}, {"type": "string"}]
        return {"anyOf": amount if "pattern" in schema else port}
    properties = schema.get("properties")
    converted = {key: closed(value) for key, value in schema.items() if key not in ("properties", "default")}
    if properties is not None:
        converted["properties"] = {name: closed(value) for name, value in properties.items()}
        defaulted = {name for name, value in properties.items() if "default" in value}
        converted["required"] = [name for name in schema.get("required", []) if name not in defaulted]
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            converted["additionalProperties"] = False
    if schema.get("nullable") and isinstance(schema.get("type"), str):
        converted["type"] = [schema["type"], "null"]
    return converted


def cel_failures(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """(field, message) of each `x-kubernetes-validations` rule that the value breaks; rules on changes are skipped."""
    import cel

    for rule in schema.get("x-kubernetes-validations") or []:
        if "oldSelf" not in rule["rule"] and cel.evaluate(rule["rule"], {"self": value}) is not True:
            yield path, rule.get("message", rule["rule"])
    if isinstance(value, dict):
        properties, others = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, item in value.items():
            child = properties.get(key, others if isinstance(others, dict) else {})
            yield from cel_failures(item, child, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from cel_failures(item, schema.get("items") or {}, f"{path}[{index}]")


def _path(parts: Any) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".") or "(object)"
