"""A run's folder."""

from pathlib import Path

import pytest

from rlframe.errors import ConfigError
from rlframe.record.directory import RunDir


def test_a_folder_without_files_of_a_run_holds_no_run(tmp_path):
    (tmp_path / "notes.txt").write_text("why I tried this")
    assert not RunDir(tmp_path).holds_a_run()
    assert not RunDir(tmp_path / "new").holds_a_run()


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "checkpoints/step_000010"])
def test_one_file_of_a_run_makes_a_folder_hold_a_run(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert RunDir(tmp_path).holds_a_run()


def test_a_run_directory_is_absolute_and_created_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = RunDir(Path("runs/a"))
    monkeypatch.chdir("/")
    files.create()
    files.create()
    assert sorted(path.name for path in (tmp_path / "runs" / "a").iterdir()) == ["checkpoints", "rollouts"]
    assert not files.holds_a_run()  # a start that failed is no run


def test_a_folder_that_takes_no_file_is_refused_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=rf"^run_dir: this machine cannot write into {tmp_path}/file/run: .*Not a dir"
    ):
        RunDir(tmp_path / "file" / "run").create()
    with pytest.raises(ConfigError, match=r"cannot write into /proc/run: .*; choose another folder"):
        RunDir(Path("/proc/run")).create()
