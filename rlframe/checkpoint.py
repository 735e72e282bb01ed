"""Saves and restores a run: learner shards, prompt position, experience ledger, under one manifest.

DeepSpeed writes its files in place, without fsync, and marks them complete before all ranks have written, so a
checkpoint here is written aside, listed with sizes and hashes in a manifest, synced, and renamed last. One
whose manifest does not hold was cut short: it is named and passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rlframe.errors import RunFailed

if TYPE_CHECKING:
    from rlframe.experience import Experience
    from rlframe.learner.group import LearnerGroup
    from rlframe.rollout.pool import RolloutPool

MANIFEST = "manifest.json"
STATE = "state.json"


def save(folder: Path, step: int, learner: LearnerGroup, experience: Experience, *, keep: int, export: bool) -> Path:
    """Writes `folder`/step_000012 and removes all but the newest `keep`."""
    target = folder / f"step_{step:06d}"
    aside = folder / f".{target.name}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    learner.save(aside / "learner")
    if export:
        learner.export(aside / "huggingface")
    (aside / STATE).write_text(json.dumps({"step": step, "experience": experience.state()}))
    seal(aside)
    if target.exists():
        shutil.rmtree(target)
    aside.rename(target)
    _sync(folder)
    found = _newest_first(folder)
    here = found.index(target)  # newer ones are broken: this run passed over them when it resumed
    for unwanted in found[:here] + found[here + keep :]:
        shutil.rmtree(unwanted)
    return target


def restore(
    folder: Path, learner: LearnerGroup, experience: Experience, rollouts: RolloutPool, warn: Callable[[str], None]
) -> int:
    """Continues from the newest whole checkpoint -> its step. Names each one that is passed over to `warn`.

    Raises RunFailed when there is none.
    """
    found = newest_whole(folder, warn)
    state = json.loads((found / STATE).read_text())
    learner.load(found / "learner", version=state["step"])
    experience.restore(state["experience"])
    rollouts.update(learner.weights(), version=state["step"])
    return state["step"]


def newest_whole(folder: Path, warn: Callable[[str], None]) -> Path:
    """The newest checkpoint whose manifest holds. Raises RunFailed when there is none."""
    for candidate in _newest_first(folder):
        problem = fault(candidate)
        if problem is None:
            return candidate
        warn(f"checkpoint {candidate} is passed over: {problem}")
    raise RunFailed(f"no whole checkpoint in {folder}")


def seal(folder: Path) -> None:
    """Syncs every file to disk and writes the manifest: path -> size and SHA-256."""
    files = {
        str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": _digest(file, sync=True)}
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps(files, indent=1))
    _digest(manifest, sync=True)
    for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        _sync(inner)


def fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint, naming the file; None when it is whole."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return f"{MANIFEST} is missing"
    try:
        files = json.loads(manifest.read_text())
    except ValueError as error:  # no JSON, or no UTF-8
        return f"{MANIFEST} is cut short ({error})"
    for name, entry in files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != entry["bytes"]:
            return f"{name} has {file.stat().st_size} bytes, not {entry['bytes']}"
        if _digest(file) != entry["sha256"]:
            return f"{name} has other content than was saved"
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step_*"), reverse=True)


def _digest(file: Path, *, sync: bool = False) -> str:
    with file.open("rb") as stream:
        if sync:
            os.fsync(stream.fileno())
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
