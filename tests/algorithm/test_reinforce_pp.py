"""REINFORCE++ and its baseline form: advantages of a whole step."""

import math

import pytest
import torch

from rlframe.algorithm import Algorithm, ReinforcePP, ReinforcePPBaseline
from tests.tiny.batches import make_batch
from tests.tiny.groups import rewarded

GLOBAL = ReinforcePP(name="reinforce_pp", clip=0.2)
BASELINE = ReinforcePPBaseline(name="reinforce_pp_baseline", clip=0.2)


def step(algorithm: Algorithm, *groups: list[float]) -> list[float]:
    return algorithm.over_step(torch.cat([algorithm.advantages(rewarded(group)) for group in groups])).tolist()


def test_reinforce_pp_compares_with_the_mean_of_the_step():
    # Rewards 1, 1, 1, 0: mean 3/4, deviation over n - 1: 1/2.
    assert step(GLOBAL, [1.0, 1.0], [1.0, 0.0]) == pytest.approx([0.5, 0.5, 0.5, -1.5], abs=1e-5)


def test_the_baseline_gives_equal_rewards_of_a_prompt_advantage_0():
    # Centred: 0, 0, 1/2, -1/2; deviation over n - 1: sqrt((1/4 + 1/4) / 3) = 0.40825.
    advantages = step(BASELINE, [1.0, 1.0], [1.0, 0.0])
    assert advantages == pytest.approx([0.0, 0.0, 1.22474, -1.22474], abs=1e-4)
    assert advantages[:2] == [0.0, 0.0]  # to the last bit, so that the learner skips both


def test_small_differences_of_rewards_are_not_magnified():
    # GRPO would give both groups the same advantages.
    fine, coarse = step(BASELINE, [0.51, 0.49], [1.0, 0.0])[::2]
    assert fine / coarse == pytest.approx(0.02, rel=1e-4)


def test_a_step_of_equal_rewards_has_advantage_0():
    assert step(GLOBAL, [0.8] * 3, [0.8] * 4) == [0.0] * 7
    assert step(BASELINE, [0.8] * 3, [0.2] * 4) == [0.0] * 7


def test_ratios_are_clipped_and_completions_have_equal_weight():
    for algorithm in (GLOBAL, BASELINE):
        loss = algorithm.token_loss(torch.tensor([math.log(1.5)] * 2), make_batch([0.0, 0.0], [1.0, -1.0]))
        assert loss.tolist() == pytest.approx([-1.2, 1.5])
        assert algorithm.token_weights(torch.tensor([1.0, 4.0]), torch.tensor([0, 1])).tolist() == [0.5, 0.125]
