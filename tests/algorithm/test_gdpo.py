"""GDPO: every reward is standardised within the prompt before the weighted sum."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlframe.algorithm import GDPO, GRPO, rate
from rlframe.algorithm.rate import has_signal
from rlframe.training import GroupRecord
from rlframe.types import RewardTerm
from tests.tiny.batches import make_batch
from tests.tiny.groups import make_record

CLIP_FIFTH = GDPO(name="gdpo", clip=0.2)


def group(weights: dict[str, float], scores: dict[str, list[float]]) -> GroupRecord:
    """A group with these rewards, as the composition makes it."""
    count = len(next(iter(scores.values())))
    rewards = [sum(weights[name] * scores[name][g] for name in scores) for g in range(count)]
    terms = {name: RewardTerm(weight=weights[name], scores=scores[name]) for name in scores}
    return replace(make_record(rewards, [1] * count), terms=terms)


def test_each_reward_counts_by_its_weight_whatever_its_spread():
    # Standardised scores: math +-0.70711 (spread 1), length -+0.70711 (spread 0.01); weights 1 and 0.5.
    two = group({"math": 1.0, "length": 0.5}, {"math": [1.0, 0.0], "length": [0.0, 0.01]})
    assert CLIP_FIFTH.advantages(two).tolist() == pytest.approx([0.35355, -0.35355], abs=1e-4)


def test_equal_sums_of_different_scores_have_different_advantages():
    # The sums 2, 1, 1 come from scores that GRPO cannot tell apart in the last two completions.
    three = group({"a": 1.0, "b": 0.5}, {"a": [1.0, 1.0, 0.0], "b": [2.0, 0.0, 2.0]})
    first, second, third = CLIP_FIFTH.advantages(three).tolist()
    assert first > second > third
    assert len(set(GRPO(name="grpo", clip=0.2).advantages(three).tolist())) == 2


def test_advantages_equal_the_papers_equations_in_float64():
    rng = np.random.default_rng(0)
    weights = {"a": 1.0, "b": -0.3, "c": 0.2}
    scores = [{name: rng.normal(size=size).tolist() for name in weights} for size in (4, 4, 5)]
    expected = []
    for of_prompt in scores:
        normalized = [
            weights[name] * (np.array(values) - np.mean(values)) / np.std(values, ddof=1)
            for name, values in of_prompt.items()
        ]
        expected += np.sum(normalized, axis=0).tolist()
    batch = np.array(expected)
    batch = (batch - batch.mean()) / batch.std(ddof=1)
    rated = rate([group(weights, of_prompt) for of_prompt in scores], CLIP_FIFTH)
    assert [value for one in rated for value in one.advantages] == pytest.approx(batch.tolist(), abs=1e-4)


def test_a_reward_that_all_completions_share_teaches_nothing():
    rated = rate([group({"math": 1.0, "format": 1.0}, {"math": [1.0, 0.0], "format": [1.0, 1.0]})] * 2, CLIP_FIFTH)
    alone = rate([group({"math": 1.0}, {"math": [1.0, 0.0]})] * 2, CLIP_FIFTH)
    assert rated[0].advantages == pytest.approx(alone[0].advantages)


def test_only_scores_that_all_agree_leave_a_group_without_signal():
    equal_sums = group({"a": 1.0, "b": 0.5}, {"a": [1.0, 0.0], "b": [0.0, 2.0]})
    assert equal_sums.rewards == [1.0, 1.0]
    assert has_signal(equal_sums, CLIP_FIFTH, "train")
    assert not has_signal(equal_sums, GRPO(name="grpo", clip=0.2), "train")
    assert not has_signal(group({"a": 1.0}, {"a": [1.0, 1.0]}), CLIP_FIFTH, "train")


def test_the_loss_is_clipped_and_completions_have_equal_weight():
    loss = CLIP_FIFTH.token_loss(torch.tensor([math.log(1.5)] * 2), make_batch([0.0, 0.0], [1.0, -1.0]))
    assert loss.tolist() == pytest.approx([-1.2, 1.5])
    assert CLIP_FIFTH.token_weights(torch.tensor([1.0, 4.0]), torch.tensor([0, 1])).tolist() == [0.5, 0.125]
