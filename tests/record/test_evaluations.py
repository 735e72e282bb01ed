"""The file of evaluations."""

import json

from rlframe.record.evaluations import add_evaluation, keep_evaluations, read_evaluations


def test_an_evaluation_replaces_those_of_its_step_and_later(tmp_path):
    file = tmp_path / "evaluations.jsonl"
    assert read_evaluations(file) == []
    for step, score in [(0, 0.1), (10, 0.2), (20, 0.3)]:
        add_evaluation(file, step, {"eval/pass@1": score})
    add_evaluation(file, 10, {"eval/pass@1": 0.9})  # resumed at step 5
    assert read_evaluations(file) == [{"step": 0, "eval/pass@1": 0.1}, {"step": 10, "eval/pass@1": 0.9}]
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [0, 10]
    assert [path.name for path in tmp_path.iterdir()] == ["evaluations.jsonl"]


def test_a_run_that_goes_back_drops_later_evaluations(tmp_path):
    file = tmp_path / "evaluations.jsonl"
    keep_evaluations(file, 5)  # there is none
    for step in (0, 5, 10):
        add_evaluation(file, step, {"eval/pass@1": step / 10})
    keep_evaluations(file, 5)
    assert [row["step"] for row in read_evaluations(file)] == [0, 5]
