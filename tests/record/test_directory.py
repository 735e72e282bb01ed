"""A run's folder."""

from pathlib import Path

import pytest

from rlframe.record.directory import RunDir


def test_a_folder_without_files_of_a_run_holds_no_run(tmp_path):
    (tmp_path / "notes.txt").write_text("why I tried this")
    assert not RunDir(tmp_path).holds_a_run()
    assert not RunDir(tmp_path / "new").holds_a_run()


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "checkpoints"])
def test_one_file_of_a_run_makes_a_folder_hold_a_run(tmp_path, name):
    (tmp_path / name).mkdir() if name == "checkpoints" else (tmp_path / name).write_text("")
    assert RunDir(tmp_path).holds_a_run()


def test_a_run_directory_is_absolute_and_created_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = RunDir(Path("runs/a"))
    monkeypatch.chdir("/")
    files.create()
    files.create()
    assert sorted(path.name for path in (tmp_path / "runs" / "a").iterdir()) == ["checkpoints", "rollouts"]
    assert files.holds_a_run()
