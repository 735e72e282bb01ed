"""Scored completions on disk, and selections of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rlframe.cli import select
from tests.tiny.drawn import drawn, write_part


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two prompts in two parts; the second prompt is in both, and one of its completions is cut off."""
    (tmp_path / "draw").mkdir()
    parts = [
        [
            drawn("What is 2 + 3?", "It is 5.", reward=1.0, tokens=20),
            drawn("What is 2 + 3?", "Well, it is 5.", reward=1.0, tokens=30),
            drawn("What is 2 + 3?", "It is 6.", reward=0.0, tokens=10),
            drawn("What is 4 + 4?", "It is 8.", reward=1.0, tokens=12),
        ],
        [
            drawn("What is 4 + 4?", "it is  8.", reward=1.0, tokens=11),
            drawn("What is 4 + 4?", "It is 8, since", reward=0.0, tokens=40, finish_reason="length"),
            drawn("What is 4 + 4?", "", reward=None, tokens=1),
        ],
    ]
    for number, records in enumerate(parts):
        write_part(tmp_path / "draw" / f"part_{number:06d}.jsonl.gz", records)
    return tmp_path / "draw"


@pytest.fixture
def selected(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[list[dict], dict]]:
    """Selects from `folder` with settings -> rows and counts."""

    def run(*settings: str, sources: list[Path] | None = None) -> tuple[list[dict], dict]:
        out = folder.parent / "rows.jsonl"
        assert select.main([*map(str, sources or [folder]), f"out={out}", *settings]) == 0, capsys.readouterr().err
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        counts = json.loads(out.with_suffix(".counts.json").read_text())
        assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
        assert counts["rows"] == len(rows)
        return rows, counts

    return run


@pytest.fixture
def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Selects with settings that are refused, and writes nothing -> the one line that says why."""

    def run(*settings: str, sources: list[Path] | None = None) -> str:
        out = folder.parent / "rows.jsonl"
        assert select.main([*map(str, sources or [folder]), f"out={out}", *settings]) == 2
        assert not list(out.parent.glob("rows.*"))
        headline, *lines = capsys.readouterr().err.splitlines()
        assert headline == "Nothing can be selected:"
        assert len(lines) == 1
        return lines[0].strip()

    return run
