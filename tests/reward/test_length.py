"""The rewards of length, computed by hand."""

import pytest
from pydantic import ValidationError

from rlframe.reward.length import KimiLength, SoftOverlong
from rlframe.types import Completion, Prompt, RolloutGroup, Verdict

PROMPT = Prompt(id="p", messages=[], token_ids=[], reference="5", task="math")


def completion(tokens: int) -> Completion:
    return Completion(token_ids=[7] * tokens, logprobs=[], versions=[], text="", finish_reason="stop")


def verdict(score: float | None) -> Verdict:
    return Verdict(score=score, status="failed" if score is None else "scored", seconds=0.0, detail="worker died")


def kimi(lengths: list[int], scores: list[float | None]) -> list[float | Verdict]:
    group = RolloutGroup.single_turn(PROMPT, [completion(length) for length in lengths])
    reward = KimiLength(name="kimi_length", weight=1.0, correct="math")
    return reward.score_group(group, {"math": [verdict(score) for score in scores], "format": []})


@pytest.mark.parametrize(
    ("tokens", "score"),
    [(0, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (99, -0.95), (100, -1.0), (101, -1.0), (1000, -1.0)],
)
def test_the_last_20_of_100_tokens_cost_a_twentieth_each(tokens: int, score: float):
    reward = SoftOverlong(name="soft_overlong", weight=1.0, max_tokens=100, cache_tokens=20)
    assert reward(PROMPT, completion(tokens)) == pytest.approx(score)


def test_a_cache_as_long_as_the_limit_punishes_every_token():
    reward = SoftOverlong(name="soft_overlong", weight=1.0, max_tokens=4, cache_tokens=4)
    assert [reward(PROMPT, completion(tokens)) for tokens in range(6)] == [0.0, -0.25, -0.5, -0.75, -1.0, -1.0]


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        ({"max_tokens": 100, "cache_tokens": 101}, "cache_tokens: 101 are more than max_tokens, 100"),
        ({"max_tokens": 100, "cache_tokens": 0}, "greater than 0"),
        ({"max_tokens": 0, "cache_tokens": 1}, "greater than 0"),
    ],
)
def test_impossible_limits_say_what_is_wrong(limits: dict[str, int], what: str):
    with pytest.raises(ValidationError, match=what):
        SoftOverlong.model_validate({"name": "soft_overlong", "weight": 1.0, **limits})


def test_correct_completions_score_from_a_half_down_to_minus_a_half():
    assert kimi([10, 20, 30, 50], [1.0, 1.0, 1.0, 1.0]) == [0.5, 0.25, 0.0, -0.5]


def test_a_short_wrong_completion_gains_nothing_and_a_long_one_loses():
    assert kimi([10, 20, 30, 50], [0.0, 0.0, 0.0, 0.5]) == [0.0, 0.0, 0.0, -0.5]


def test_wrong_completions_count_in_the_lengths_of_the_group():
    assert kimi([10, 30, 20], [0.0, 0.0, 1.0]) == [0.0, -0.5, 0.0]


@pytest.mark.parametrize("lengths", [[7, 7, 7], [0, 0, 0]])
def test_equal_lengths_score_zero(lengths: list[int]):
    assert kimi(lengths, [1.0, 0.0, 1.0]) == [0.0, 0.0, 0.0]


def test_a_group_of_one_scores_zero():
    assert kimi([7], [1.0]) == [0.0]


def test_a_failed_correctness_verdict_fails_the_length_with_its_reason():
    right, failed, wrong = kimi([10, 20, 30], [1.0, None, 0.0])
    assert (right, wrong) == (0.5, -0.5)
    assert isinstance(failed, Verdict)
    assert (failed.score, failed.status, failed.detail) == (None, "failed", "'math' has no verdict: worker died")


def test_an_unknown_name_of_correct_is_an_error_that_lists_the_names():
    reward = KimiLength(name="kimi_length", weight=1.0, correct="maths")
    with pytest.raises(ValueError, match=r"'maths': \['format', 'math'\]"):
        reward.score_group(RolloutGroup.single_turn(PROMPT, []), {"math": [], "format": []})
