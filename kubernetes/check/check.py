"""All rules for the objects of an overlay."""

from __future__ import annotations

from pathlib import Path

from kubernetes.check import agreement, entrypoint, metrics, network, operator_rules, restricted, schemas, selectors
from kubernetes.check.pods import pods
from kubernetes.check.problem import Manifest, Problem, of_kind, title


def check(manifests: list[Manifest], definitions: Path | None = None) -> list[Problem]:
    """Problems of an overlay's objects. `definitions`: folder with KubeRay's CustomResourceDefinitions.

    Where an object breaks its schema, the schemas' problems are the only ones: other rules rely on the fields.
    """
    schema_problems = sorted(schemas.check(manifests, definitions))
    if schema_problems:
        return schema_problems
    made_pods = pods(manifests)
    problems, judge_groups = entrypoint.check(manifests, made_pods)
    problems += operator_rules.check(manifests)
    problems += restricted.check(made_pods)
    problems += selectors.check(manifests, made_pods)
    problems += network.check(manifests, made_pods, judge_groups)
    problems += metrics.check(manifests)
    problems += agreement.check(manifests, made_pods)
    for secret in of_kind(manifests, "Secret"):
        text = "values of secrets stand in the overlay; make it by kubectl create secret, or by an operator for secrets"
        problems.append(Problem(where=title(secret), text=text, rule="secret/plain"))
    return sorted(problems)
