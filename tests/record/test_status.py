"""A run's status: written whole, read back, and told in the words of a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlframe.record.status import WaitStatus, read_status, write_status
from tests.tiny.status import make_actor, make_engine, make_status

ACTORS = [
    make_actor("learner-1", "backward of micro-batch 3 of 8", 41.0),
    make_actor("learner-0", "forward of micro-batch 3 of 8", 39.0, silent_s=38.0),
    make_actor("reward-2", "sandbox case 7 of gsm8k-104", 12.0),
    make_actor("reward-1"),
]
ENGINES = [make_engine("rollout-3", 14, silent_s=40.0), make_engine("rollout-2", 0)]


def test_a_status_is_read_as_it_was_written(tmp_path: Path):
    wait = WaitStatus(text="learner-0 to take step 7", seconds=41.5, unmoved_s=38.0, bound_s=1800.0)
    written = make_status(waits=[wait], engines=ENGINES, actors=ACTORS, metrics={"loss": 0.25, "reward/mean": None})
    write_status(tmp_path / "status.json", written)
    assert read_status(tmp_path / "status.json") == written


@pytest.mark.parametrize("content", ["", "{}", '{"state": "running"}', "[1]"])
def test_another_file_is_no_status(tmp_path: Path, content: str):
    (tmp_path / "status.json").write_text(content)
    with pytest.raises(ValueError):
        read_status(tmp_path / "status.json")


def test_the_longest_unmoved_actors_come_first_in_the_words_of_a_person():
    assert "; ".join(make_status(actors=ACTORS, engines=ENGINES).lines()) == (
        "learner-1: backward of micro-batch 3 of 8 for 41 s; rollout-3: 14 sequences, no token for 40 s; "
        "learner-0 has not answered for 38 s; reward-2: sandbox case 7 of gsm8k-104 for 12 s"
    )


def test_an_engine_that_does_not_answer_is_told_once():
    status = make_status(actors=[make_actor("rollout-3", silent_s=38.0)], engines=ENGINES)
    assert status.lines() == ["rollout-3 has not answered for 38 s"]


def test_an_engine_tells_its_speed_or_its_load():
    assert make_engine("rollout-0", 3, tokens_per_s=210.4).line() == "rollout-0: 3 sequences, 210 tokens/s"
    loading = make_engine("rollout-0", 3, loading_s=61.0)
    assert loading.line() == "rollout-0: 3 sequences wait for new weights, for 61 s"


def test_a_large_run_names_sixteen_actors_and_counts_the_others():
    actors = [make_actor(f"learner-{rank}", "step", float(rank)) for rank in range(20)]
    lines = make_status(actors=actors).lines()
    assert len(lines) == 17
    assert lines[0] == "learner-19: step for 19 s" and lines[-1] == "and 4 more actors"
