"""The metrics file, written and read."""

import json
import math
import resource

import pytest

from rlframe.errors import RunFailed
from rlframe.record.metrics import JsonlSink, last_step, read_metrics


def test_a_logged_line_is_on_disk_with_step_and_version_first(tmp_path):
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    sink.log(1, {"reward/mean": 0.5, "learner/grad_norm": math.nan})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert line == '{"step": 1, "policy_version": 1, "reward/mean": 0.5, "learner/grad_norm": null}\n'


def test_the_last_step_is_that_of_the_newest_whole_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_step(path) == 0
    sink = JsonlSink(path)
    for step in (1, 2):
        sink.log(step, {})
    sink.close()
    path.write_text(path.read_text() + '{"step": 3, "poli')
    assert last_step(path) == 2


def test_a_resumed_run_drops_later_steps_and_the_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = JsonlSink(path)
    for step in (1, 2, 3):
        first.log(step, {"reward/mean": step / 10})
    first.close()
    path.write_text(path.read_text() + '{"step": 4, "poli')
    resumed = JsonlSink(path, keep_through_step=2)
    resumed.log(3, {"reward/mean": 0.9})
    resumed.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["step"], line["reward/mean"]) for line in lines] == [(1, 0.1), (2, 0.2), (3, 0.9)]
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_broken_line_is_named_and_the_file_stays_unchanged(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\noops\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: not a JSON object: 'oops"):
        JsonlSink(path, keep_through_step=2)
    assert path.read_text() == '{"step": 1}\noops\n{"step": 2}\n'


def test_lines_of_one_step_are_merged_in_the_order_of_steps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "a": 1}\n{"step": 1, "a": 2}\n{"step": 2, "b": 3}\n{"step": 3')
    assert read_metrics(path) == [{"step": 1, "a": 2}, {"step": 2, "a": 1, "b": 3}]


def test_a_full_disk_is_named_and_the_next_driver_drops_the_torn_line(tmp_path):
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    sink.log(1, {"loss": 0.5})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (70, limits[1]))  # Python ignores the signal and raises an error
    try:
        with pytest.raises(RunFailed, match=r"metrics\.jsonl takes no metrics of step 2: .*go on with resume="):
            sink.log(2, {"loss": 0.25})
        sink.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "metrics.jsonl").stat().st_size == 70
    JsonlSink(tmp_path / "metrics.jsonl", keep_through_step=2).log(2, {"loss": 0.25})
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
