"""The Dockerfile: no root, pinned versions, no compiler where code of models runs."""

from __future__ import annotations

import re
from fnmatch import fnmatch

from tests.kubernetes.conftest import KUBERNETES, ROOT

COMPILERS = re.compile(r"\b(gcc|g\+\+|clang|build-essential|cuda-toolkit|nvcc)\b")
TEXT = (KUBERNETES / "Dockerfile").read_text().replace("\\\n", " ")


def stages() -> dict[str, tuple[str, list[str]]]:
    """Stage -> the image or stage below, and its instructions."""
    found: dict[str, tuple[str, list[str]]] = {}
    name = ""
    for line in (line for line in TEXT.splitlines() if line and not line.startswith("#")):
        if match := re.fullmatch(r"FROM (\S+) AS (\w+)", line):
            name = match[2]
            found[name] = (match[1], [])
        elif name:
            found[name][1].append(line)
    return found


def lineage(stage: str) -> list[str]:
    """Instructions of a stage and of those below, in the order of the build."""
    below, instructions = stages()[stage]
    return [*(lineage(below) if below in stages() else []), *instructions]


def test_the_last_stage_has_no_compiler_and_the_gpu_stage_has():
    assert list(stages())[-1] == "plain"
    assert not COMPILERS.search("\n".join(lineage("plain")))
    assert COMPILERS.search("\n".join(lineage("gpu")))


def test_no_image_runs_as_root():
    for stage in ("plain", "gpu"):
        assert [line for line in lineage(stage) if line.startswith("USER")][-1] == "USER 1000:1000"


def test_images_and_packages_are_pinned():
    (image,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", TEXT, re.M)
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", image)
    assert {below for below, _ in stages().values()} == {"${PYTHON_IMAGE}", "runtime"}
    installs = [line for line in lineage("packages") if "setup.sh" in line and line.startswith("RUN")]
    assert installs == ["RUN LOCK=${LOCK} PYTHON=python3 launch/setup.sh"]
    assert not re.search(r"\bpip install\b|\bcurl\b|\bwget\b|^ADD", TEXT, re.M)


def test_what_is_copied_exists_and_is_not_ignored():
    lines = [line.split()[1:-1] for line in lineage("packages") if line.startswith("COPY")]
    copied = [path for line in lines for path in line]
    kept = [line[1:] for line in (KUBERNETES / "Dockerfile.dockerignore").read_text().split() if line.startswith("!")]
    assert copied and all((ROOT / path).exists() for path in copied)
    assert all(any(fnmatch(path, pattern) for pattern in kept) for path in copied)
