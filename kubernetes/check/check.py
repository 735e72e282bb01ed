"""All rules for the objects of an overlay."""

from __future__ import annotations

from pathlib import Path

from kubernetes.check import agreement, entrypoint, metrics, network, operator_rules, restricted, schemas, selectors
from kubernetes.check.pods import pods
from kubernetes.check.problem import Manifest, Problem, of_kind, title


def check(manifests: list[Manifest], definitions: Path | None = None) -> list[Problem]:
    """Problems of an overlay's objects. `definitions`: folder with KubeRay's CustomResourceDefinitions.

    The schemas come first: where an object breaks its schema, the other rules would trip over it.
    """
    problems = sorted(schemas.check(manifests, definitions))
    if problems:
        return problems
    made = pods(manifests)
    found, judged = entrypoint.check(manifests, made)
    found += operator_rules.check(manifests)
    found += restricted.check(made)
    found += selectors.check(manifests, made)
    found += network.check(manifests, made, judged)
    found += metrics.check(manifests)
    found += agreement.check(manifests, made)
    for secret in of_kind(manifests, "Secret"):
        text = "values of secrets stand in the overlay; make it by kubectl create secret, or by an operator for secrets"
        found.append(Problem(where=title(secret), text=text, rule="secret/plain"))
    return sorted(found)
