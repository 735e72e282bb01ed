"""`Item`: a scored completion or a written row, read from the folders and files of a selection."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from rlframe.record import rollouts
from rlframe.record.files import stream_json_lines
from rlframe.rows.records import row_of
from rlframe.rows.types import Comparison, Demonstration, Row
from rlframe.types import Message, ScoredGroup

PATTERNS = ("step_*.jsonl.gz", "part_*.jsonl.gz", "part_*.jsonl")


class Input(NamedTuple):
    """A file of a source, as it was when the selection began."""

    source: str
    file: Path
    bytes: int
    modified_ns: int

    @classmethod
    def of(cls, source: str, file: Path) -> Input:
        status = file.stat()
        return cls(source, file, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A line of an input: exactly one of a completion, as a group of one, and a row."""

    where: str  # "runs/first/rollouts/step_000003.jsonl.gz:17"
    completion: ScoredGroup | None
    row: Row | None

    @property
    def messages(self) -> list[Message]:
        """The conversation before the answer."""
        return self.row.messages if self.row else self._scored.group.prompt.messages

    @property
    def questions(self) -> list[str]:
        """The questions whose answers may be learned: each one of a row; of a completion the last one, since worked
        examples stand before it.
        """
        if self.row is None:
            return [question_of(self.messages)]
        return [message["content"] for message in self.messages if message["role"] == "user"]

    @property
    def task(self) -> str:
        return self.row.task if self.row else self._scored.group.prompt.task

    @property
    def text(self) -> str:
        """The answer, or both answers of a comparison."""
        if self.row is None:
            return self._scored.group.completions[0].text
        if isinstance(self.row, Demonstration):
            return f"{self.row.reasoning or ''}{self.row.answer}"
        if isinstance(self.row, Comparison):
            return f"{self.row.chosen}\n{self.row.rejected}"
        return self.row.answer

    @property
    def token_ids(self) -> list[int]:
        """Token ids as sampled; empty where the text was not sampled, or its token ids were not saved."""
        if self.row is None:
            return self._scored.group.completions[0].token_ids.tolist()
        return self.row.token_ids or [] if isinstance(self.row, Demonstration) else []

    @property
    def tokens(self) -> int | None:
        """Number of sampled tokens; None where it is unknown."""
        return len(self.token_ids) or None

    def score(self, verdict: str | None) -> float | None:
        """The score by a reward, or the whole reward for None; a NaN is no score, nor is a reward of other tasks."""
        if self.row is not None or (verdict is not None and verdict not in self._scored.verdicts):
            return None
        score = self._scored.rewards[0] if verdict is None else self._scored.verdicts[verdict][0].score
        return None if score is None or math.isnan(score) else score

    @property
    def _scored(self) -> ScoredGroup:
        assert self.completion is not None
        return self.completion


def inputs_of(sources: Iterable[str]) -> list[Input]:
    """The files of all sources, each in its order. Raises ValueError for a source without one."""
    return [Input.of(source, file) for source in sources for file in files_of(Path(source).expanduser())]


def read_inputs(inputs: Iterable[Input]) -> Iterator[tuple[str, Item]]:
    """Every line with its source, one in memory at a time.

    Raises ValueError that names file and line, and for a file that has changed since `inputs_of`.
    """
    for source_file in inputs:
        for item in _read(source_file.file):
            yield source_file.source, item
        if Input.of(source_file.source, source_file.file) != source_file:
            raise ValueError(f"{source_file.file} has changed while it was read; select once its writer has ended")


def read_items(source: str) -> Iterator[Item]:
    """Every line of a source, one in memory at a time. Raises ValueError that names the path, or file and line."""
    return chain.from_iterable(map(_read, files_of(Path(source).expanduser())))


def _read(file: Path) -> Iterator[Item]:
    for number, record in stream_json_lines(file):
        yield _item(record, f"{file}:{number}", f"{file}, line {number}")


def files_of(path: Path) -> list[Path]:
    """The files of a source, in the order of steps or parts. Raises ValueError where there is none."""
    if path.is_file():
        return [path]
    folder = rollouts.folder_of(path)
    if not folder.is_dir():
        raise ValueError(f"there is no file or folder {path.resolve()}")
    for pattern in PATTERNS:
        if files := sorted(
            folder.glob(pattern), key=lambda file: [int(part) for part in re.findall(r"\d+", file.name)]
        ):
            return files
    raise ValueError(f"{path}: the folder holds none of {', '.join(PATTERNS)}; name a run, or the folder of a draw")


def question_of(messages: list[Message]) -> str:
    """The last message of the user."""
    return next((message["content"] for message in reversed(messages) if message["role"] == "user"), "")


def _item(record: dict[str, Any], where: str, line: str) -> Item:
    if {"turns", "verdicts"} <= record.keys():  # a written row may have either
        return Item(where=where, completion=rollouts.trajectory(record, line), row=None)
    return Item(where=where, completion=None, row=row_of(record, where, line))
