"""Requests to a run from other commands: files in the run's folder `requests`, each answered by another file.

    requests/6f0c.json           {"rollout": "4"}
    requests/6f0c.answer.json    {"refused": false, "text": "4 engines are wanted, 2 more than before"}

The folder exists while a run answers. Files appear whole, because each is renamed into its place.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from rlframe.record.files import replace_file

REQUEST, ANSWER = ".json", ".answer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A run's answer to a request."""

    refused: bool
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request that waits for its answer."""

    file: Path
    wishes: dict[str, str]  # key -> value, as the command line has them

    def answer(self, answer: Answer) -> None:
        _write(self.file.with_suffix(ANSWER), asdict(answer))
        self.file.unlink(missing_ok=True)


def open_folder(folder: Path) -> Path:
    """Begins to answer -> the mark of this process. Requests to an earlier process of the run are forgotten."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark = folder / f".answered-by-{uuid.uuid4().hex[:8]}"
    mark.touch()
    return mark


def close_folder(mark: Path) -> None:
    """Ends all answering, unless another process has begun to answer there."""
    if mark.exists():
        shutil.rmtree(mark.parent, ignore_errors=True)


def waiting(mark: Path) -> list[Request]:
    """Requests without an answer, the oldest first; none once another process answers there."""
    found: list[tuple[float, Request]] = []
    for file in mark.parent.glob(f"*{REQUEST}") if mark.exists() else ():
        if not file.name.endswith(ANSWER):
            with suppress(FileNotFoundError):  # withdrawn meanwhile
                found.append((file.stat().st_mtime, Request(file=file, wishes=json.loads(file.read_text()))))
    return [request for _, request in sorted(found, key=lambda each: each[0])]


def send(folder: Path, wishes: dict[str, str]) -> Path:
    """Asks a run -> the request's file. Raises FileNotFoundError where no run answers."""
    file = folder / f"{uuid.uuid4().hex[:8]}{REQUEST}"
    _write(file, wishes)
    return file


def answer_to(file: Path) -> Answer | None:
    """The answer to a request; None: not yet."""
    answer = file.with_suffix(ANSWER)
    return Answer(**json.loads(answer.read_text())) if answer.exists() else None


def withdraw(file: Path) -> None:
    """Removes a request and its answer."""
    file.unlink(missing_ok=True)
    file.with_suffix(ANSWER).unlink(missing_ok=True)


def _write(file: Path, content: Mapping[str, object]) -> None:
    replace_file(file, json.dumps(content).encode())
