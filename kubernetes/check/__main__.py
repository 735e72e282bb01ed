"""`python -m kubernetes.check OVERLAY ...`: renders overlays and prints the rules that they break.

Exit codes: 0 without a problem, 1 with one, 2 where an overlay does not render.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from kubernetes.check.check import check
from kubernetes.check.render import RenderError, render

DEFINITIONS = Path(__file__).parents[1] / "crds"
FETCH = "kubectl get crd rayclusters.ray.io -o yaml > kubernetes/crds/ray.io_rayclusters.yaml, and so for rayjobs"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m kubernetes.check", description="Checks overlays without a cluster."
    )
    parser.add_argument("overlay", nargs="+", type=Path, help="folder with a kustomization.yaml")
    crds = "KubeRay's CustomResourceDefinitions (default: $KUBERAY_CRDS, or kubernetes/crds)"
    default = os.environ.get("KUBERAY_CRDS", DEFINITIONS)
    parser.add_argument("--crds", type=Path, default=default, metavar="FOLDER", help=crds)
    options = parser.parse_args(arguments)
    definitions = Path(options.crds)
    if not (definitions / "ray.io_rayclusters.yaml").is_file():
        print(
            f"fields of RayCluster and RayJob are not checked: {definitions} has no definitions; {FETCH}",
            file=sys.stderr,
        )
        definitions = None
    problems = 0
    for overlay in options.overlay:
        try:
            found = check(render(overlay), definitions)
        except RenderError as error:
            print(error, file=sys.stderr)
            return 2
        for problem in found:
            print(f"{overlay}: {problem}")
        problems += len(found)
        if not found:
            print(f"{overlay}: no problem")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
