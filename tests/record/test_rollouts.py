"""Rollout files, written and read."""

import gzip
import json

import numpy as np
import pytest

from rlframe.record.files import read_json_lines
from rlframe.record.rollouts import read, write_step
from rlframe.types import Completion, Prompt, RolloutGroup, ScoredGroup, Verdict, VersionSpan
from tests.tiny.groups import (
    make_group,
    make_multi_turn_group,
    make_turn,
    make_verdict,
    plain,
    with_token_rewards,
)


def without_logprobs(group: ScoredGroup) -> dict:
    """A group as plain values, as a file that holds no log-probabilities returns it."""
    values = plain(group)
    for trajectory in values["group"]["trajectories"]:
        for turn in trajectory["turns"]:
            turn["completion"]["logprobs"] = []
    return values


def test_a_file_holds_one_object_a_trajectory(tmp_path):
    prompt = Prompt(
        id="p@0",
        messages=[{"role": "user", "content": "2 + 3?"}],
        token_ids=[1, 1],
        reference="5",
        task="math",
        extra={"level": [1, None]},
    )
    spans = [VersionSpan(version=3, start=0, end=1), VersionSpan(version=3, start=1, end=2)]
    quote = Completion(  # a lone surrogate is no UTF-8
        token_ids=[1, 1], logprobs=[-0.5, -0.5], versions=spans, text="„5“ \ud800", finish_reason="stop"
    )
    verdicts = {
        "math": [
            Verdict(score=1.0, status="scored", seconds=0.25, detail="5 = 5"),
            Verdict(score=None, status="failed", seconds=0.25, detail="worker died"),
        ]
    }
    group = ScoredGroup(group=RolloutGroup.single_turn(prompt, [quote, quote]), rewards=[1.0, None], verdicts=verdicts)
    path = write_step(tmp_path / "rollouts", 7, [(group, [0.5, None])])
    assert [file.name for file in (tmp_path / "rollouts").iterdir()] == ["step_000007.jsonl.gz"]
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        first, second = map(json.loads, lines)
    assert first == {
        "format": 1, "step": 7, "prompt_id": "p@0", "task": "math",
        "messages": [{"role": "user", "content": "2 + 3?"}], "reference": "5",
        "extra": {"level": [1, None]}, "reward": 1.0, "advantage": 0.5,
        "verdicts": {"math": {"score": 1.0, "status": "scored", "seconds": 0.25, "detail": "5 = 5"}},
        "turns": [
            {
                "parent": None, "observed": [1, 1], "token_ids": [1, 1], "text": "„5“ \ud800",
                "finish_reason": "stop",
                "versions": [{"version": 3, "start": 0, "end": 1}, {"version": 3, "start": 1, "end": 2}],
                "logprob_sum": -1.0,
            }
        ],
    }  # fmt: skip
    assert (second["reward"], second["advantage"], second["verdicts"]["math"]["status"]) == (None, None, "failed")
    assert read(tmp_path, None)[0].group.prompt.extra == {"level": [1, None]}


def test_multi_turn_trajectories_and_token_advantages_round_trip(tmp_path):
    tool_call = [make_turn(None, [1, 2], [3, 4]), make_turn(0, [5], [6, 7, 8])]
    branches = [*tool_call, make_turn(0, [9], [10])]
    group = make_multi_turn_group([tool_call, branches], [1.0, None])
    path = write_step(tmp_path, 1, [(group, [np.arange(5, dtype=np.float32), None])])
    [saved] = read(tmp_path, None)
    assert plain(saved) == without_logprobs(group)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        first, second = map(json.loads, lines)
    assert (first["advantage"], second["advantage"]) == ([0.0, 1.0, 2.0, 3.0, 4.0], None)
    assert [turn["logprob_sum"] for turn in second["turns"]] == [-7.0, -21.0, -10.0]


def test_groups_come_back_the_newest_step_first_up_to_a_limit(tmp_path):
    for step in (1, 2):
        groups = [(make_group([1.0, 0.0], [2, 0], name=f"{step}/{index}"), [0.5, -0.5]) for index in range(2)]
        write_step(tmp_path / "rollouts", step, groups)
    assert [group.group.prompt.id for group in read(tmp_path, None)] == ["2/0", "2/1", "1/0", "1/1"]
    assert [group.group.prompt.id for group in read(tmp_path, 3)] == ["2/0", "2/1"]
    assert plain(read(tmp_path, 1)[0].verdicts) == plain({"math": [make_verdict(1.0), make_verdict(0.0)]})


def test_advantages_must_match_the_trajectories(tmp_path):
    group = make_group([1.0, 0.0], [1, 1])
    with pytest.raises(ValueError, match="shorter"):
        write_step(tmp_path, 1, [(group, [0.5])])


@pytest.mark.parametrize(
    ("fields", "fault"),
    [({}, "format is older than 1, and"), ({"format": 2}, "format is 2, and"), ({"format": 1}, "no field 'prompt_id'")],
)
def test_another_format_is_refused_with_file_and_line(tmp_path, fields, fault):
    with gzip.open(tmp_path / "step_000001.jsonl.gz", "wt") as lines:
        lines.write(json.dumps(fields) + "\n")
    with pytest.raises(ValueError, match=rf"step_000001\.jsonl\.gz, line 1: .*{fault}"):
        read(tmp_path, None)


def test_a_file_has_the_sum_of_the_rewards_of_tokens(tmp_path):
    scored = with_token_rewards(make_group([1.0], [2]), [[0.5, -0.25]])
    file = write_step(tmp_path, 1, [(scored, [0.0])])
    (line,) = read_json_lines(file)
    assert line["verdicts"]["teacher/big"]["token_reward"] == 0.25
    assert "token_rewards" not in line["verdicts"]["teacher/big"] and "token_reward" not in line["verdicts"]["math"]
    assert read(tmp_path, None)[0].verdicts["teacher/big"][0].score == 0.25
