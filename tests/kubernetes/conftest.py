"""Rendered overlays, and KubeRay's CustomResourceDefinitions where this machine has them."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from kubernetes.check.problem import Manifest
from kubernetes.check.render import render

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "kubernetes"
OVERLAYS = sorted(
    str(path.parent.relative_to(KUBERNETES / "overlays"))
    for path in (KUBERNETES / "overlays").glob("*/*/kustomization.yaml")
)
DEFINITIONS = [KUBERNETES / "crds", ROOT.parent / "shared" / "kuberay"]


@cache
def rendered(overlay: str) -> list[Manifest]:
    return render(KUBERNETES / "overlays" / overlay)


@pytest.fixture(scope="session")
def manifests() -> Callable[[str], list[Manifest]]:
    """`manifests("small/job")`: the objects of an overlay, a copy to change."""
    return lambda overlay: copy.deepcopy(rendered(overlay))


@pytest.fixture(scope="session")
def definitions() -> Path:
    """The folder with KubeRay's CustomResourceDefinitions; tests that need it are skipped where there is none."""
    given = os.environ.get("KUBERAY_CRDS")
    for folder in [Path(given)] if given else DEFINITIONS:
        if (folder / "ray.io_rayclusters.yaml").is_file():
            return folder
    pytest.skip("KubeRay's CustomResourceDefinitions are not here; kubernetes/README.md says how to get them")
