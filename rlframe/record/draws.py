"""`DrawFolder`: the parts of a draw on disk, and `draw.json`, its settings and counts.

    draw/draw.json                   {"format": 1, "settings": {...}, "problems": 7473, "parts": {...}, "total": {...}}
    draw/part_000001.jsonl.gz        rollouts of the first `draw.part` prompts of the stream, without skipped ones
    draw/rows.jsonl                  labels of steps, where earlier completions are continued; `rows` counts these

A part's counts are written before its file appears, so that every file has counts; counts without a file mean nothing.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import reduce
from pathlib import Path
from typing import Any

from rlframe.errors import ConfigError
from rlframe.record import rollouts
from rlframe.record.files import replacing
from rlframe.types import ScoredGroup

FORMAT = 1
INDEX = "draw.json"
LOCK = ".draw.lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawCounts:
    """Counts of a part, or of several: `overlong` + `heldout` + `given_up` + `prompts` are the positions drawn."""

    prompts: int = 0  # with completions
    completions: int = 0
    tokens: int = 0  # sampled
    judged: int = 0  # completions with a score by the deciding reward
    right: int = 0  # of these
    unscored: int = 0  # completions without a reward
    failed_verdicts: int = 0  # of all rewards
    cut_off: int = 0  # completions at the greatest length
    overlong: int = 0  # prompts that were skipped
    heldout: int = 0  # likewise
    given_up: list[str] = field(default_factory=list)  # ids of prompts
    seconds: float = 0.0  # since the part before was finished, so that the sum is the time of sampling

    def __add__(self, other: DrawCounts) -> DrawCounts:
        return DrawCounts(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    def words(self) -> str:
        """One line for people: "512 prompts  4096 completions  812,000 tokens  43.2% right  ..."."""
        per_s = self.tokens / self.seconds if self.seconds else 0.0
        words = [f"{self.prompts:,} prompts", f"{self.completions:,} completions", f"{self.tokens:,} tokens"]
        words += [f"{self.right / self.judged:.1%} right"] if self.judged else []
        counted = {"cut off": self.cut_off, "failed verdicts": self.failed_verdicts, "overlong": self.overlong}
        counted |= {"held out": self.heldout, "given up": len(self.given_up)}
        words += [f"{count:,} {name}" for name, count in counted.items() if count]
        return "  ".join([*words, f"{per_s:,.0f} tok/s"])


class DrawFolder:
    """The folder of one draw, held by one process at a time."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Begins a draw with these settings, or goes on with it. A draw without a part begins anew.

        Raises ConfigError for a folder that holds other files or a draw with other settings, which names the first key
        that differs, and for a folder that another process draws into.
        """
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock = (path / LOCK).open("w")  # held until `close`, or the end of the process
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"draw.dir: another process draws into {path}, or it cannot be locked: {error}") from None
        written = json.loads(json.dumps(settings))
        self._index: dict[str, Any] = {"format": FORMAT, "settings": written, "problems": None, "parts": {}}
        if (path / INDEX).is_file():
            saved = _read(path / INDEX)
            difference = _difference(saved["settings"], written)
            if difference and any((path / name).is_file() for name in saved["parts"]):
                raise ConfigError(
                    f"draw.dir: {path} holds a draw with {difference}; repeat its settings, or choose another folder"
                )
            self._index = self._index if difference else saved
        elif others := sorted(file.name for file in path.iterdir() if file.name not in (LOCK, f"{INDEX}.tmp")):
            raise ConfigError(f"draw.dir: {path} holds other files, as {others[0]}; choose a new folder")
        self._write()

    def note_problems(self, problems: int, source: str) -> None:
        """Raises ConfigError where the prompts' source has another number of problems than before."""
        if (known := self._index["problems"]) is None:
            self._index["problems"] = problems
            self._write()
        elif known != problems:
            raise ConfigError(
                f"draw.dir: {self.path} holds a draw from {known} problems, and {source} has {problems} now; "
                "bring the old problems back, or choose another folder"
            )

    def missing(self, parts: int) -> list[int]:
        """Numbers of the parts that are not on disk, from 1 to `parts`."""
        return [number for number in range(1, parts + 1) if not self._is_complete(part_name(number))]

    def save(self, number: int, groups: list[ScoredGroup], counts: DrawCounts) -> None:
        """Writes a part, whose file appears once it is whole."""
        self._index["parts"][part_name(number)] = asdict(counts)
        self._write()
        rollouts.write_durably(self.path / part_name(number), number, groups)

    def finish(self) -> DrawCounts:
        """The counts of all parts, which `draw.json` has as `total` from now on."""
        complete = [counts for name, counts in self._index["parts"].items() if self._is_complete(name)]
        total = reduce(DrawCounts.__add__, (DrawCounts(**counts) for counts in complete), DrawCounts())
        self._index["total"] = asdict(total)
        self._write()
        return total

    def note_rows(self, counts: Mapping[str, int]) -> None:
        """Lets `draw.json` have the counts of completions that became rows, or did not."""
        self._index["rows"] = dict(counts)
        self._write()

    def close(self) -> None:
        """Lets another process draw into the folder."""
        self._lock.close()

    def _is_complete(self, name: str) -> bool:
        return name in self._index["parts"] and (self.path / name).is_file()

    def _write(self) -> None:
        with replacing(self.path / INDEX) as file:
            file.write((json.dumps(self._index, ensure_ascii=False, indent=1) + "\n").encode(errors="backslashreplace"))


def part_name(number: int) -> str:
    """The file of a part: "part_000001.jsonl.gz" is the first."""
    return f"part_{number:06d}.jsonl.gz"


def _read(file: Path) -> dict[str, Any]:
    """The saved index. Raises ConfigError."""
    index = json.loads(file.read_text())
    if index["format"] != FORMAT:
        raise ConfigError(f"draw.dir: {file} has format {index['format']}, and this version of rlframe reads {FORMAT}")
    return index


def _difference(saved: Any, now: Any, path: str = "") -> str | None:
    """The first key whose values differ, with both values: "seed=0, where this command has 1"; None where all agree."""
    if isinstance(saved, dict) and isinstance(now, dict):
        keys = [*saved, *(key for key in now if key not in saved)]
        found = (_difference(saved.get(key), now.get(key), f"{path}.{key}" if path else key) for key in keys)
        return next((difference for difference in found if difference), None)
    return None if saved == now else f"{path}={saved!r}, where this command has {now!r}"
