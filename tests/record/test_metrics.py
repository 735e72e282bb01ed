"""Statistics of rollouts, and the sinks that numbers go to."""

import gzip
import json
import math

import pytest

from rlframe.experience.statistics import rollout_metrics
from rlframe.record.metrics import JsonlSink
from rlframe.record.rollouts import RolloutWriter
from rlframe.record.wandb import WandbSink
from rlframe.types import Completion, Prompt, RolloutGroup, ScoredGroup, Verdict, VersionSpan


def completion(versions: list[int], finish_reason: str = "stop", text: str = "5", cached_tokens: int = 0) -> Completion:
    """One token a version named."""
    spans = [VersionSpan(version=version, start=at, end=at + 1) for at, version in enumerate(versions)]
    size = len(versions)
    return Completion(
        token_ids=[1] * size, logprobs=[-0.5] * size, versions=spans, text=text, finish_reason=finish_reason,
        cached_tokens=cached_tokens,
    )  # fmt: skip


def verdict(score: float | None, detail: str = "") -> Verdict:
    return Verdict(score=score, status="failed" if score is None else "scored", seconds=0.25, detail=detail)


def scored(completions, rewards, verdicts, prompt_tokens: int = 4) -> ScoredGroup:
    prompt = Prompt(
        id="p@0", messages=[{"role": "user", "content": "2 + 3?"}], token_ids=[1] * prompt_tokens, reference="5",
        task="math",
    )  # fmt: skip
    return ScoredGroup(group=RolloutGroup(prompt=prompt, completions=completions), rewards=rewards, verdicts=verdicts)


TWO = [completion([3, 3]), completion([3, 3, 3, 4], finish_reason="length")]
RIGHT_AND_WRONG = scored(TWO, [1.0, 0.0], {"math": [verdict(1.0), verdict(0.0)]}, prompt_tokens=4)
BOTH_RIGHT = scored(TWO, [1.0, 1.0], {"math": [verdict(1.0), verdict(1.0)]}, prompt_tokens=6)
ONE_FAILED = scored(TWO, [1.0, None], {"math": [verdict(1.0), verdict(None)], "format": [verdict(0.5), verdict(0.5)]})


def test_the_mean_reward_of_1_0_1_1_is_three_quarters():
    metrics = rollout_metrics([RIGHT_AND_WRONG, BOTH_RIGHT], version=4)
    assert metrics["reward/mean"] == 0.75
    assert metrics["reward/std"] == pytest.approx(math.sqrt(0.75 * 0.25))


def test_a_completion_without_a_reward_is_counted_as_failed_and_left_out_of_every_mean():
    metrics = rollout_metrics([ONE_FAILED], version=4)
    assert metrics["reward/mean"] == 1.0
    assert metrics["reward/math"] == 1.0
    assert metrics["reward/format"] == 0.5
    assert metrics["reward/failed"] == 1
    assert [metrics[f"reward/{name}/failed"] for name in ("math", "format")] == [0.5, 0.0]  # shares
    assert metrics["reward/math/seconds_max"] == 0.25


def test_prompts_of_4_and_8_tokens_drawn_from_twice_and_once_are_9_sixteenths_cached_where_9_tokens_were():
    twice = scored([completion([3], cached_tokens=0), completion([3], cached_tokens=3)], [1.0, 0.0], {}, 4)
    once = scored([completion([3], cached_tokens=6)], [1.0], {}, 8)
    assert rollout_metrics([twice, once], version=4)["rollout/prompt_cached"] == 9 / 16


def test_groups_whose_known_rewards_are_equal_have_no_signal():
    assert rollout_metrics([RIGHT_AND_WRONG], version=4)["reward/groups_without_signal"] == 0
    assert rollout_metrics([RIGHT_AND_WRONG, BOTH_RIGHT, ONE_FAILED], version=4)["reward/groups_without_signal"] == 2


def test_where_every_reward_failed_there_is_no_mean_rather_than_a_zero():
    failed = scored(TWO, [None, None], {"math": [verdict(None), verdict(None)]})
    metrics = rollout_metrics([failed], version=4)
    assert metrics["reward/failed"] == 2
    assert not {"reward/mean", "reward/std", "reward/math"} & metrics.keys()


def test_lengths_are_a_mean_per_completion_and_a_total():
    metrics = rollout_metrics([RIGHT_AND_WRONG, BOTH_RIGHT], version=4)
    assert metrics["rollout/completion_tokens"] == 3.0
    assert metrics["rollout/tokens"] == 12
    assert metrics["rollout/prompt_tokens"] == 5.0
    assert metrics["rollout/truncated"] == 0.5


def test_staleness_is_a_mean_over_tokens_not_over_completions():
    metrics = rollout_metrics([RIGHT_AND_WRONG], version=5)  # five tokens two versions old, one token one
    assert metrics["rollout/staleness_max"] == 2
    assert metrics["rollout/staleness_mean"] == pytest.approx(11 / 6)


def test_completions_without_tokens_have_no_staleness():
    empty = scored([completion([])], [0.0], {"math": [verdict(0.0)]})
    assert "rollout/staleness_mean" not in rollout_metrics([empty], version=5)


def test_a_line_is_on_disk_when_logged_with_step_and_version_first(tmp_path):
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    sink.log(1, {"reward/mean": 0.5, "learner/grad_norm": math.nan})
    line = (tmp_path / "metrics.jsonl").read_text()
    assert line == '{"step": 1, "policy_version": 1, "reward/mean": 0.5, "learner/grad_norm": null}\n'


def test_a_resumed_run_drops_later_steps_and_the_torn_line_and_goes_on(tmp_path):
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


def test_a_broken_line_in_the_middle_is_an_error_that_names_it_and_changes_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\noops\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: no line of metrics: 'oops"):
        JsonlSink(path, keep_through_step=2)
    assert path.read_text() == '{"step": 1}\noops\n{"step": 2}\n'


def test_a_file_of_rollouts_holds_one_object_a_completion(tmp_path):
    quote = completion([3, 3], text="„5“ \ud800")  # a lone surrogate is no UTF-8
    group = scored([quote, TWO[1]], [1.0, None], {"math": [verdict(1.0, "5 = 5"), verdict(None, "worker died")]})
    path = RolloutWriter(tmp_path / "rollouts").write(7, [group], advantages=[[0.5, None]])
    assert [file.name for file in (tmp_path / "rollouts").iterdir()] == ["step_000007.jsonl.gz"]
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        first, second = map(json.loads, lines)
    assert first == {
        "step": 7, "prompt_id": "p@0", "task": "math", "messages": [{"role": "user", "content": "2 + 3?"}],
        "reference": "5", "text": "„5“ \ud800", "finish_reason": "stop", "reward": 1.0, "advantage": 0.5,
        "verdicts": {"math": {"score": 1.0, "status": "scored", "seconds": 0.25, "detail": "5 = 5"}},
        "versions": [{"version": 3, "start": 0, "end": 1}, {"version": 3, "start": 1, "end": 2}],
        "token_ids": [1, 1], "logprob_sum": -1.0,
    }  # fmt: skip
    assert (second["reward"], second["advantage"], second["verdicts"]["math"]["status"]) == (None, None, "failed")


def test_advantages_must_match_the_completions(tmp_path):
    with pytest.raises(ValueError, match="shorter"):
        RolloutWriter(tmp_path).write(1, [RIGHT_AND_WRONG], advantages=[[0.5]])


def test_an_offline_wandb_run_needs_no_key_and_leaves_its_log_in_the_run_directory(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="an optional extra")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    for _ in range(2):  # the second is the resumed run
        sink = WandbSink(tmp_path / "run", {"algorithm": {"name": "grpo"}}, project="rlframe", mode="offline")
        sink.log(1, {"reward/mean": 0.5})
        sink.close()
    wandb_id = (tmp_path / "run" / "wandb_id").read_text()
    assert list((tmp_path / "run" / "wandb").glob(f"offline-run-*-{wandb_id}/run-{wandb_id}.wandb"))
