"""`Problem`: a rule that a manifest breaks, with the object, the field and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

Manifest: TypeAlias = dict[str, Any]  # an object as kustomize renders it


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Problem:
    """`RayCluster/rlframe spec.rayVersion: 2.6.0, but the image has Ray 2.60.0 [ray-version]`."""

    where: str  # object and field
    text: str
    rule: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text} [{self.rule}]"


def title(manifest: Manifest) -> str:
    return f"{manifest.get('kind')}/{manifest.get('metadata', {}).get('name')}"


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest.get("kind") == kind]
