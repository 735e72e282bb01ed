"""`manifest.json` of a checkpoint: size and hash of each file, as told by the process that wrote the file.

{"learner/rank_00000_of_00002.safetensors": {"bytes": 104, "sha256": "9f86..."}, "state.json": ...}
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rlframe.record.directory import appears

MANIFEST = "manifest.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFile:
    """A file on disk, as its writer says."""

    path: Path
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteReport:
    """A process's files of a checkpoint."""

    writer: str  # "learner-0"
    host: str
    files: list[WrittenFile]
    error: str | None  # the reason why files are missing; None: all are written


def report_on(writer: str, write: Callable[[], list[Path]]) -> WriteReport:
    """Lets `write` make files, whose paths it returns, and reports once this machine's disk has them.

    A failure is a part of the report. Only the machine that wrote a file can bring the file to the disk.
    """
    try:
        files, error = [_flushed(path) for path in write()], None
    except Exception as failure:
        logger.exception("files of a checkpoint were not written")
        files, error = [], f"{type(failure).__name__}: {failure}"
    return WriteReport(writer=writer, host=socket.gethostname(), files=files, error=error)


def unreadable(file: WrittenFile) -> str | None:
    """The difference between a file as this machine reads it and the writer's words; None where there is none."""
    if not asyncio.run(appears(file.path)):
        return "does not see it"
    try:
        return _difference(file.path, file.bytes, file.sha256)
    except OSError as error:
        return f"cannot read it: {error}"


def seal(folder: Path, files: Iterable[WrittenFile]) -> None:
    """Writes the manifest of a folder, and returns once the disk has the names of all files."""
    entries = {
        str(file.path.relative_to(folder)): {"bytes": file.bytes, "sha256": file.sha256}
        for file in sorted(files, key=lambda file: file.path)
    }
    manifest = folder / MANIFEST
    manifest.write_text(json.dumps(entries, indent=1))
    _digest(manifest, sync=True)
    for inner in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        sync_folder(inner)


def first_fault(folder: Path) -> str | None:
    """The first difference between a folder and its manifest, with the file's name; None for a whole folder."""
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return f"{MANIFEST} is missing"
    try:
        files = json.loads(manifest.read_text())
    except ValueError as error:  # no JSON, or no UTF-8
        return f"{MANIFEST} is cut short ({error})"
    for name, entry in files.items():
        if not (folder / name).is_file():
            return f"{name} is missing"
        if difference := _difference(folder / name, entry["bytes"], entry["sha256"]):
            return f"{name} {difference}"
    return None


def sync_folder(folder: Path) -> None:
    """Returns once the disk has the names of the folder's files."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flushed(path: Path) -> WrittenFile:
    return WrittenFile(path=path, bytes=path.stat().st_size, sha256=_digest(path, sync=True))


def _difference(file: Path, size: int, sha256: str) -> str | None:
    if file.stat().st_size != size:
        return f"has {file.stat().st_size} bytes, not {size}"
    return None if _digest(file) == sha256 else "has other content than was saved"


def _digest(file: Path, *, sync: bool = False) -> str:
    with file.open("rb") as stream:
        if sync:
            os.fsync(stream.fileno())
        return hashlib.file_digest(stream, "sha256").hexdigest()
