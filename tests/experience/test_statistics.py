"""Metrics of a step's groups, with numbers worked out by hand."""

import math

import pytest

from rlframe.experience.statistics import rollout_metrics
from rlframe.training import GroupRecord
from rlframe.types import Completion, Prompt, RolloutGroup, ScoredGroup, Verdict, VersionSpan
from tests.tiny.groups import recorded


def completion(versions: list[int], finish_reason: str = "stop", text: str = "5", cached_tokens: int = 0) -> Completion:
    """A completion with one token for each of these policy versions."""
    spans = [VersionSpan(version=version, start=index, end=index + 1) for index, version in enumerate(versions)]
    size = len(versions)
    return Completion(
        token_ids=[1] * size, logprobs=[-0.5] * size, versions=spans, text=text, finish_reason=finish_reason,
        cached_tokens=cached_tokens,
    )  # fmt: skip


def verdict(score: float | None, detail: str = "") -> Verdict:
    return Verdict(score=score, status="failed" if score is None else "scored", seconds=0.25, detail=detail)


def scored(completions, rewards, verdicts, prompt_tokens: int = 4) -> GroupRecord:
    prompt = Prompt(
        id="p@0", messages=[{"role": "user", "content": "2 + 3?"}], token_ids=[1] * prompt_tokens, reference="5",
        task="math",
    )  # fmt: skip
    group = RolloutGroup.single_turn(prompt, completions)
    return recorded(ScoredGroup(group=group, rewards=rewards, verdicts=verdicts))


TWO = [completion([3, 3]), completion([3, 3, 3, 4], finish_reason="length")]
RIGHT_AND_WRONG = scored(TWO, [1.0, 0.0], {"math": [verdict(1.0), verdict(0.0)]}, prompt_tokens=4)
BOTH_RIGHT = scored(TWO, [1.0, 1.0], {"math": [verdict(1.0), verdict(1.0)]}, prompt_tokens=6)
ONE_FAILED = scored(TWO, [1.0, None], {"math": [verdict(1.0), verdict(None)], "format": [verdict(0.5), verdict(0.5)]})


def test_the_mean_reward_of_1_0_1_1_is_three_quarters():
    metrics = rollout_metrics([RIGHT_AND_WRONG, BOTH_RIGHT], version=4)
    assert metrics["reward/mean"] == 0.75
    assert metrics["reward/std"] == pytest.approx(math.sqrt(0.75 * 0.25))


def test_a_failed_verdict_is_counted_and_left_out_of_means():
    metrics = rollout_metrics([ONE_FAILED], version=4)
    assert metrics["reward/mean"] == 1.0
    assert metrics["reward/math"] == 1.0
    assert metrics["reward/format"] == 0.5
    assert metrics["reward/failed"] == 1
    assert [metrics[f"reward/{name}/failed"] for name in ("math", "format")] == [0.5, 0.0]  # shares
    assert metrics["reward/math/seconds_max"] == 0.25


def test_the_cached_share_is_over_the_prompts_of_all_completions():
    twice = scored([completion([3], cached_tokens=0), completion([3], cached_tokens=3)], [1.0, 0.0], {}, 4)
    once = scored([completion([3], cached_tokens=6)], [1.0], {}, 8)
    assert rollout_metrics([twice, once], version=4)["rollout/prompt_cached"] == 9 / 16


def test_groups_with_equal_rewards_have_no_signal():
    assert rollout_metrics([RIGHT_AND_WRONG], version=4)["reward/groups_without_signal"] == 0
    assert rollout_metrics([RIGHT_AND_WRONG, BOTH_RIGHT, ONE_FAILED], version=4)["reward/groups_without_signal"] == 2


def test_a_single_completion_is_no_group_without_signal():
    alone = scored([completion([3])], [1.0], {"math": [verdict(1.0)]})
    assert rollout_metrics([alone, BOTH_RIGHT], version=4)["reward/groups_without_signal"] == 1


def test_cut_off_completions_are_counted_where_they_have_no_loss():
    shares = {mode: rollout_metrics([RIGHT_AND_WRONG], 4, mode)["rollout/masked"] for mode in ("train", "mask", "drop")}
    assert shares == {"train": 0.0, "mask": 0.5, "drop": 0.5}


def test_a_mean_over_failed_rewards_only_is_left_out():
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


def test_mean_staleness_is_over_tokens():
    metrics = rollout_metrics([RIGHT_AND_WRONG], version=5)  # ages: five tokens 2, one token 1
    assert metrics["rollout/staleness_max"] == 2
    assert metrics["rollout/staleness_mean"] == pytest.approx(11 / 6)


def ages(versions: list[int], version: int, oldest_version: int | None = None) -> dict[str, float]:
    """The metrics of ages, of a completion with one token of each of these versions."""
    metrics = rollout_metrics([scored([completion(versions)], [1.0], {})], version, oldest_version=oldest_version)
    return {name: value for name, value in metrics.items() if "age_" in name or name == "rollout/masked_tokens"}


def test_shares_of_ages_are_over_tokens_and_in_ranges_beyond_4():
    assert ages([20, 20, 19, 16, 15, 12, 11, 4, 3, 0], version=20) == {
        "rollout/age_0": 0.2,
        "rollout/age_1": 0.1,
        "rollout/age_4": 0.1,
        "rollout/age_5_8": 0.2,
        "rollout/age_9_16": 0.2,
        "rollout/age_over_16": 0.2,
    }


def test_masked_tokens_are_those_older_than_the_oldest_version():
    assert ages([5, 7, 8, 8], version=8, oldest_version=7)["rollout/masked_tokens"] == 0.25
    assert ages([8], version=8, oldest_version=7) == {"rollout/age_0": 1.0, "rollout/masked_tokens": 0.0}


def test_completions_without_tokens_have_no_staleness():
    empty = scored([completion([])], [0.0], {"math": [verdict(0.0)]})
    assert "rollout/staleness_mean" not in rollout_metrics([empty], version=5)
