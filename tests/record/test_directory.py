"""A run's folder."""

import json
from pathlib import Path

import pytest

from rlframe.record.directory import RunDir


def test_evaluations_are_one_line_a_step_and_a_resumed_run_takes_later_ones_back(tmp_path):
    files = RunDir(tmp_path)
    assert files.read_evaluations() == []
    for step, score in [(0, 0.1), (10, 0.2), (20, 0.3)]:
        files.add_evaluation(step, {"eval/pass@1": score})
    files.add_evaluation(10, {"eval/pass@1": 0.9})  # resumed at step 5
    assert files.read_evaluations() == [{"step": 0, "eval/pass@1": 0.1}, {"step": 10, "eval/pass@1": 0.9}]
    assert [json.loads(line)["step"] for line in (tmp_path / "evaluations.jsonl").read_text().splitlines()] == [0, 10]
    assert [file.name for file in tmp_path.iterdir()] == ["evaluations.jsonl"]


def test_a_folder_that_is_only_there_holds_no_run(tmp_path):
    (tmp_path / "notes.txt").write_text("why I tried this")
    assert not RunDir(tmp_path).holds_a_run()
    assert not RunDir(tmp_path / "new").holds_a_run()


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "checkpoints"])
def test_one_file_of_a_run_is_enough_to_hold_one(tmp_path, name):
    (tmp_path / name).mkdir() if name == "checkpoints" else (tmp_path / name).write_text("")
    assert RunDir(tmp_path).holds_a_run()


def test_a_created_run_is_one_wherever_the_process_goes_afterwards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = RunDir(Path("runs/a"))
    monkeypatch.chdir("/")
    files.create()
    files.create()
    assert sorted(path.name for path in (tmp_path / "runs" / "a").iterdir()) == ["checkpoints", "rollouts"]
    assert files.holds_a_run()
