"""Environments of other frameworks, each apart from rlframe's, made on first use."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
CACHE = Path.home() / ".cache" / "rlframe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A framework to compare with: its packages, and the folder of their environment."""

    environment: Path
    packages: tuple[str, ...]
    bare_packages: tuple[str, ...] = ()  # installed without their dependencies, which are many and not needed

    def python(self) -> Path:
        """The environment's interpreter; makes the environment on first use."""
        python = self.environment / "bin" / "python"
        if not python.exists():
            uv = [sys.executable, "-m", "uv"]
            subprocess.run([*uv, "venv", "--python", sys.executable, str(self.environment)], check=True)
            # uv finds a CPU build of torch in the folder that pip would use, as in launch/setup.sh.
            links = {"UV_FIND_LINKS": os.environ.get("UV_FIND_LINKS", os.environ.get("PIP_FIND_LINKS", ""))}
            for names in (self.packages, ("--no-deps", *self.bare_packages) if self.bare_packages else ()):
                if names:
                    install = [*uv, "pip", "install", "--python", str(python), *names]
                    subprocess.run(install, check=True, stdout=sys.stderr, env={**os.environ, **links})
        return python

    def output(self, *arguments: str) -> str:
        """What the interpreter prints, apart from a process group that this process may be a rank of."""
        environment = {name: value for name, value in os.environ.items() if name not in RANK_VARIABLES}
        command = [str(self.python()), *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout


TRL = Peer(
    environment=CACHE / "trl-1.16.0",
    packages=("trl==1.16.0", "torch==2.13.0", "transformers==5.19.0", "accelerate==1.15.0", "datasets==5.2.0"),
)
# verl's modules import these packages; its losses need no others.
VERL = Peer(
    environment=CACHE / "verl-0.9.1",
    packages=(
        "torch==2.13.0",
        "numpy>=2",
        "tensordict==0.10.0",
        "transformers==5.9.0",
        "ray==2.56.1",
        "hydra-core",
        "packaging",
        "pandas",
        "codetiming",
    ),
    bare_packages=("verl==0.9.1",),
)
