"""`rlframe select`: refusals in one line, before anything is written."""

from __future__ import annotations

import gzip
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from rlframe.cli import select
from tests.tiny.drawn import drawn, write_part

Refused = Callable[..., str]
ROOT = Path(__file__).parents[2]
PAGES = "".join((ROOT / page).read_text() for page in ("README.md", "docs/rows.md"))


@pytest.mark.parametrize("command", sorted(set(re.findall(r"rlframe select [^`\n]*", PAGES))))
def test_every_command_of_the_pages_is_a_selection(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert select.main([*shlex.split(command, comments=True)[2:], "--cfg"]) == 0
    assert "sources:\n- runs/first\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings", sorted(set(re.findall(r"^\| `'?(\+?(?:keep|right|dup|held|max_)[^`|]*)`", PAGES, re.M)))
)
def test_every_setting_of_the_page_exists(refused: Refused, settings: str) -> None:
    assert "there is no such key" not in refused(settings.removesuffix("'"), "keep.reward=[9.0,null]")


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("keep.rewards=[1,2]", "keep.rewards: there is no such key; did you mean keep.reward, "),
        ("keep.reward=[2.0,1.0]", "keep.reward: the least value 2 is above the greatest 1"),
        ("keep.language=klingon", "keep: language: 'klingon' is no language of the reward `language`"),
        ("+keep.verdicts.fluent={score: [1.0, null]}", "no reward 'fluent' scored any completion; there is math"),
        ("right.verdict=fluent", "no reward 'fluent' scored any completion; there is math"),
        ("keep.reward=[2.0,null]", "no row is left of 7 lines: 5 reward, 1 cut off, 1 no verdict"),
        ("max_truncated=0.1", "max_truncated: 1 of 7 completions were cut off at the greatest length, so the others"),
        ("heldout.files=[nowhere]", "there is no file or folder"),
        ("tokenizer=/none", "tokenizer: /none: there is no such Hugging Face folder"),
        ("select=longest", "Could not find 'select/longest'"),
    ],
)
def test_settings_that_cannot_work(refused: Refused, setting: str, line: str) -> None:
    assert line in refused(setting)


def test_sources_that_are_no_completions(refused: Refused, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "the folder holds none of step_*.jsonl.gz" in refused(sources=[empty])
    assert "there is no file or folder" in refused(sources=[tmp_path / "none"])
    write_part(empty / "part_000000.jsonl.gz", [])
    assert refused(sources=[empty]) == "no row is left of 0 lines: the inputs are empty"


def test_a_torn_part_is_named(refused: Refused, folder: Path) -> None:
    part = folder / "part_000001.jsonl.gz"
    whole = part.read_bytes()
    part.write_bytes(whole[:-20])
    assert refused().startswith(f"{part}: the file is torn after line ")
    part.write_bytes(b"no gzip")
    assert refused().startswith(f"{part}: the file is torn after line 0")
    part.write_bytes(gzip.compress(b'{"format": 1,\n'))
    assert refused() == f"{part}, line 1: not a JSON object: '{{\"format\": 1,\\n'"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"format": 9}, "line 1: the rollout format is 9, and this version of rlframe reads only 1"),
        ({"turns": [{"parent": None}]}, "line 1: no field 'text' in a message, turn or verdict"),
        ({"turns": []}, "line 1: the trajectory has no turn"),
        ({"verdicts": {"math": {"score": 1.0}}}, "line 1: a field holds what no rollout has"),
        ({"reward": "1"}, "line 1: a field holds what no rollout has ('1' as a score)"),
        ({"task": None}, "line 1: a field holds what no rollout has (None as a text)"),
        ({"messages": [{"role": "user"}]}, "line 1: no field 'content'"),
        ({"messages": None, "turns": "x"}, "line 1: a field holds what no rollout has"),
    ],
)
def test_a_broken_line_is_named(refused: Refused, folder: Path, change: dict, line: str) -> None:
    write_part(folder / "part_000000.jsonl.gz", [drawn("1 + 1?", "2", reward=1.0, tokens=1) | change])
    assert line in refused()


def test_a_file_that_cannot_be_read_is_named(refused: Refused, folder: Path) -> None:
    (folder / "part_000002.jsonl.gz").mkdir()
    assert "Is a directory" in refused()


def test_completions_without_ids_cannot_be_measured(refused: Refused, folder: Path) -> None:
    for part in folder.iterdir():
        part.unlink()
    write_part(folder / "part_000000.jsonl.gz", [drawn("1 + 1?", "2", reward=1.0, tokens=0)])
    assert "has no token ids, so keep.tokens cannot count them" in refused("keep.tokens=[1,9]")
    assert "has no token ids, so select=shortest cannot compare it" in refused("select=shortest")
    out = folder.parent / "text.jsonl"
    assert select.main([str(folder), f"out={out}"]) == 0  # but can be rows


def test_all_truncated_is_refused_unless_told_otherwise(refused: Refused, folder: Path) -> None:
    for part in folder.iterdir():
        part.unlink()
    cut = drawn("1 + 1?", "2 is", reward=0.0, tokens=4, finish_reason="length")
    write_part(folder / "part_000000.jsonl.gz", [cut])
    assert "1 of 1 completions were cut off" in refused()
    assert refused("max_truncated=1.0") == "no row is left of 1 lines: 1 cut off"


def test_rows_of_the_wrong_kind_are_refused(refused: Refused, folder: Path) -> None:
    rows = folder.parent / "rows_in.jsonl"
    rows.write_text('{"prompt": "Hello?", "chosen": "Hi.", "rejected": "Go."}\n')
    assert "is a comparison, and select=all writes demonstrations" in refused(sources=[rows])
    rows.write_text('{"prompt": "Hello?", "completion": "Hi."}\n')
    assert "is a demonstration, and select=pairs writes comparisons" in refused("select=pairs", sources=[rows])


def test_the_output_is_no_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "Hello?", "completion": "Hi."}\n')
    assert select.main([str(rows), f"out={rows}"]) == 2
    assert "is one of the sources; write to another file" in capsys.readouterr().err
    assert select.main([str(rows), f"out={tmp_path}/none/rows.jsonl"]) == 2
    assert "out: there is no folder" in capsys.readouterr().err
    assert select.main([str(rows)]) == 2
    assert "out: has no value; set out=..." in capsys.readouterr().err
    assert select.main([f"out={tmp_path}/a.jsonl"]) == 2
    assert "sources: names nothing to select from" in capsys.readouterr().err


def test_the_config_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert select.main(["runs/first", "out=a.jsonl", "--cfg"]) == 0
    assert "sources:\n- runs/first\nout: a.jsonl\n" in capsys.readouterr().out
