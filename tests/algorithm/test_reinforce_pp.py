"""REINFORCE++ and its baseline form: KL to go, and advantages whitened over all tokens of a step."""

import math
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch

from rlframe.algorithm import Algorithm, ReinforcePP, ReinforcePPBaseline, rate
from rlframe.training import GroupRecord
from tests.tiny.batches import make_batch
from tests.tiny.groups import make_record

GLOBAL = ReinforcePP(name="reinforce_pp", clip=0.2)
BASELINE = ReinforcePPBaseline(name="reinforce_pp_baseline", clip=0.2)


def step(algorithm: Algorithm, *groups: GroupRecord) -> list[list[float]]:
    """The advantages of each trajectory's tokens."""
    return [values.tolist() for rated in rate(list(groups), algorithm) for values in rated.advantages]


def test_a_long_completion_weighs_more_in_the_mean_of_the_step():
    # Tokens 1, 1, 1 and 0: mean 3/4, deviation sqrt(3) / 4.
    long, short = step(GLOBAL, make_record([1.0], [3]), make_record([0.0], [1]))
    assert long == pytest.approx([1 / math.sqrt(3)] * 3, abs=1e-5)
    assert short == pytest.approx([-math.sqrt(3)], abs=1e-5)


def test_one_completion_of_each_prompt_is_enough():
    assert step(GLOBAL, make_record([1.0], [1]), make_record([0.0], [1])) == [
        pytest.approx([1.0], abs=1e-5),
        pytest.approx([-1.0], abs=1e-5),
    ]


def penalized_groups(sizes: list[int]) -> tuple[list[GroupRecord], list[np.ndarray], list[np.ndarray]]:
    """Groups of random rewards and KL penalties -> groups with penalties subtracted, rewards before, penalties."""
    rng = np.random.default_rng(5)
    groups, all_rewards, all_penalties = [], [], []
    for size in sizes:
        lengths = rng.integers(1, 9, size).tolist()
        rewards = rng.normal(size=size)
        penalties = [0.1 * rng.normal(size=length) for length in lengths]
        remaining = [float(reward - values.sum()) for reward, values in zip(rewards, penalties, strict=True)]
        groups.append(replace(make_record(remaining, lengths), token_penalties=penalties))
        all_rewards.append(rewards)
        all_penalties += penalties
    return groups, all_rewards, all_penalties


def whitened_returns(rewards: list[float], penalties: list[np.ndarray]) -> np.ndarray:
    """Equations 8 to 10 of the paper in float64, token by token as in OpenRLHF: the reward stands at the last token."""
    returns = []
    for reward, values in zip(rewards, penalties, strict=True):
        token_rewards = -values.astype(np.float64)
        token_rewards[-1] += reward
        returns += [token_rewards[token:].sum() for token in range(len(values))]
    flat = np.array(returns)
    return (flat - flat.mean()) / np.sqrt(((flat - flat.mean()) ** 2).mean())


def test_advantages_equal_equations_8_to_10_of_the_paper():
    groups, rewards, penalties = penalized_groups([1, 1, 1, 1, 1])
    expected = whitened_returns(np.concatenate(rewards).tolist(), penalties)
    assert list(chain(*step(GLOBAL, *groups))) == pytest.approx(expected.tolist(), abs=2e-5)


def test_the_baseline_is_the_mean_reward_before_the_kl():
    groups, rewards, penalties = penalized_groups([3, 2, 4])
    centred = np.concatenate([values - values.mean() for values in rewards])
    expected = whitened_returns(centred.tolist(), penalties)
    assert list(chain(*step(BASELINE, *groups))) == pytest.approx(expected.tolist(), abs=2e-5)


def test_small_differences_of_rewards_are_not_magnified():
    # GRPO would give both groups the same advantages.
    fine, _, coarse, _ = step(BASELINE, make_record([0.51, 0.49], [1, 1]), make_record([1.0, 0.0], [1, 1]))
    assert fine[0] / coarse[0] == pytest.approx(0.02, rel=1e-4)


def test_a_step_of_equal_rewards_has_advantage_0():
    assert step(GLOBAL, make_record([0.8] * 3, [1, 2, 1])) == [[0.0], [0.0, 0.0], [0.0]]
    assert step(BASELINE, make_record([0.8] * 2, [1, 1]), make_record([0.2] * 2, [1, 1])) == [[0.0]] * 4


def test_ratios_are_clipped_and_completions_have_equal_weight():
    for algorithm in (GLOBAL, BASELINE):
        loss = algorithm.token_loss(torch.tensor([math.log(1.5)] * 2), make_batch([0.0, 0.0], [1.0, -1.0]))
        assert loss.tolist() == pytest.approx([-1.2, 1.5])
        assert algorithm.token_weights(torch.tensor([1.0, 4.0]), torch.tensor([0, 1])).tolist() == [0.5, 0.125]
