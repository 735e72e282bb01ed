"""The locks: every pin has the hashes of its files, and both locks pin the packages that pyproject.toml pins."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ["requirements-cpu.lock", "requirements-gpu.lock"]


def pins(lock: str) -> dict[str, tuple[str, list[str]]]:
    """Package -> version and hashes."""
    entries = re.split(r"\n(?=\S)", (ROOT / lock).read_text())
    heads = [re.match(r"([\w.-]+)==([^ \\\n]+)", entry) for entry in entries]
    assert all(heads)
    return {
        head[1]: (head[2], re.findall(r"--hash=sha256:([0-9a-f]{64})\b", entry))
        for head, entry in zip(heads, entries, strict=True)
        if head
    }


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes_but_the_cpu_build_of_torch(lock: str):
    without = {f"{name}=={version}" for name, (version, hashes) in pins(lock).items() if not hashes}
    assert without <= {"torch==2.13.0+cpu"}
    assert len(pins(lock)) > 200


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_has_the_versions_of_the_package(lock: str):
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = dict(re.match(r"([\w-]+)(?:\[.*?\])?==([^;]+)", dependency).groups() for dependency in dependencies)  # type: ignore[union-attr]
    locked = {name: version.partition("+")[0] for name, (version, _) in pins(lock).items()}
    assert wanted.items() <= locked.items()


def test_the_packages_of_the_gpu_check_are_those_of_the_lock():
    lines = (ROOT / "benchmarks" / "gpu_check.txt").read_text().splitlines()
    wanted = dict(line.split("==") for line in lines if not line.startswith("#"))
    locked = {name: version for name, (version, _) in pins("requirements-gpu.lock").items()}
    assert {"transformers", "deepspeed"} <= wanted.keys() and wanted.items() <= locked.items()
