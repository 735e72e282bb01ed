"""Formulas that algorithms share, against numbers worked by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from rlframe.algorithm import ops
from tests.tiny.batches import make_batch
from tests.tiny.groups import make_record


def surrogate(ratio: float, advantage: float, low: float = 0.2, high: float = 0.2) -> tuple[float, float]:
    """The clipped objective of a token, and the slope in the ratio."""
    ratios = torch.tensor([ratio], requires_grad=True)
    value = ops.clipped_surrogate(ratios, torch.tensor([advantage]), low, high)
    value.sum().backward()
    assert ratios.grad is not None
    return value.item(), ratios.grad.item()


def test_one_right_answer_in_four_is_one_and_a_half_deviations_up():
    advantages = ops.standardize(torch.tensor([1.0, 0.0, 0.0, 0.0]))  # mean 1/4, sample deviation 1/2
    assert advantages.tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)


def test_advantages_do_not_change_when_all_rewards_are_shifted_and_scaled():
    advantages = ops.standardize(torch.tensor([103.0, 101.0, 101.0, 101.0]))
    assert advantages.tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)


@pytest.mark.parametrize("size", [2, 3, 7, 8, 11, 64])
@pytest.mark.parametrize("reward", [0.0, 0.1, 0.2, 0.7, 0.8, 1.0, 1.1])
def test_a_group_of_equal_rewards_has_advantage_0_to_the_last_bit(size, reward):
    assert ops.standardize(torch.full((size,), reward)).tolist() == [0.0] * size


def test_centred_rewards_keep_their_scale():
    assert ops.center(torch.tensor([1.0, 0.0, 0.0, 0.0])).tolist() == [0.75, -0.25, -0.25, -0.25]
    assert ops.center(torch.full((7,), 0.8)).tolist() == [0.0] * 7


def test_leave_one_out_compares_a_reward_with_the_mean_of_the_others():
    advantages = ops.leave_one_out(torch.tensor([3.0, 1.0, 2.0]))  # 3 - 3/2, 1 - 5/2, 2 - 4/2
    assert advantages.tolist() == [1.5, -1.5, 0.0]


def test_advantages_stay_in_float32():
    assert ops.standardize(torch.tensor([1.0, 0.0])).dtype == torch.float32


@pytest.mark.parametrize(
    "ratio, advantage, value, slope",
    [
        (1.0, 2.0, 2.0, 2.0),  # on policy: the plain policy gradient
        (1.1, 2.0, 2.2, 2.0),  # within the clip
        (1.5, 2.0, 2.4, 0.0),  # a good token that is likelier already: 1.2 * 2, and no push
        (1.5, -2.0, -3.0, -2.0),  # a bad token that is likelier: the full push back
        (0.5, 2.0, 1.0, 2.0),  # a good token that is less likely: the full push
        (0.5, -2.0, -1.6, 0.0),  # a bad token that is less likely already: 0.8 * -2, and no push
    ],
)
def test_the_clip_stops_only_tokens_that_moved_the_right_way(ratio, advantage, value, slope):
    assert surrogate(ratio, advantage) == pytest.approx((value, slope))


def test_an_asymmetric_clip_stops_good_tokens_at_the_upper_bound():
    assert surrogate(1.25, 1.0, low=0.2, high=0.28) == pytest.approx((1.25, 1.0))
    assert surrogate(1.30, 1.0, low=0.2, high=0.28) == pytest.approx((1.28, 0.0))
    assert surrogate(0.75, -1.0, low=0.2, high=0.28) == pytest.approx((-0.8, 0.0))


def test_sequence_mean_gives_completions_equal_weight():
    weights = ops.sequence_mean(torch.tensor([2.0, 8.0]))
    assert weights.tolist() == [1 / 4, 1 / 16]
    assert 2 * weights[0] + 8 * weights[1] == 1.0


def test_token_mean_gives_each_of_ten_tokens_a_tenth():
    assert ops.token_mean(torch.tensor([2.0, 8.0])).tolist() == pytest.approx([0.1, 0.1])


def test_sequence_sum_divides_by_the_number_of_completions_only():
    assert ops.sequence_sum(torch.tensor([2.0, 8.0])).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    "ratio, advantage, value, slope",
    [
        (2.0, -1.0, -2.0, -1.0),  # not yet at the bound of 3
        (5.0, -1.0, -3.0, 0.0),  # beyond the bound: no harder than at 3
        (5.0, 1.0, 1.2, 0.0),  # a good token is the first clip's business
    ],
)
def test_a_dual_clip_bounds_only_bad_tokens(ratio, advantage, value, slope):
    ratios = torch.tensor([ratio], requires_grad=True)
    advantages = torch.tensor([advantage])
    clipped = ops.dual_clip(ops.clipped_surrogate(ratios, advantages, 0.2, 0.2), advantages, 3.0)
    clipped.sum().backward()
    assert ratios.grad is not None
    assert (clipped.item(), ratios.grad.item()) == pytest.approx((value, slope))


def test_a_log_ratio_is_at_most_20_nats_and_has_no_gradient_there():
    logprobs = torch.tensor([0.0, -1e4, -1.0], requires_grad=True)
    log_ratios = ops.log_ratio(logprobs, torch.tensor([-1e4, 0.0, -3.0]))
    assert log_ratios.tolist() == [20.0, -20.0, 2.0]
    log_ratios.exp().sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([0.0, 0.0, math.exp(2)])


def test_prompts_have_equal_weight_whatever_their_tokens():
    # Prompt 0 has 2 + 6 tokens, prompt 3 has 4; prompts 1 and 2 have no trajectory to train on.
    weights = ops.prompt_mean(torch.tensor([2.0, 6.0, 4.0]), torch.tensor([0, 0, 3]))
    assert weights.tolist() == [1 / 16, 1 / 16, 1 / 8]
    assert (weights * torch.tensor([2.0, 6.0, 4.0])).sum() == 1.0


def test_a_token_is_charged_the_kl_from_itself_to_the_end():
    group = replace(make_record([0.4, 1.0], [3, 1]), token_penalties=[np.array([0.1, 0.2, 0.3]), np.array([0.0])])
    before_kl = ops.rewards_before_kl(group)
    assert before_kl.tolist() == pytest.approx([1.0, 1.0])
    first, second = ops.rewards_to_go(group, before_kl)
    assert first.tolist() == pytest.approx([0.4, 0.5, 0.7])
    assert second.tolist() == [1.0]


def test_without_a_kl_every_token_gets_the_whole_reward():
    [tokens, _] = ops.rewards_to_go(make_record([0.5, 0.0], [3, 1]), torch.tensor([0.5, 0.0]))
    assert tokens.tolist() == [0.5, 0.5, 0.5]


def test_whitened_values_have_mean_0_and_deviation_1():
    assert ops.whiten(torch.tensor([1.0, 1.0, 1.0, -3.0])).tolist() == pytest.approx(  # mean 0, deviation sqrt(12 / 4)
        [1 / math.sqrt(3)] * 3 + [-math.sqrt(3)], abs=1e-5
    )
    assert ops.whiten(torch.tensor([0.8])).tolist() == [0.0]


def test_scaling_by_the_deviation_leaves_0_at_0():
    scaled = ops.scale_by_deviation(torch.tensor([0.0, 0.0, 1.0, -1.0]))  # deviation over n - 1: sqrt(2 / 3)
    assert scaled.tolist() == pytest.approx([0.0, 0.0, 1.22474, -1.22474], abs=1e-5)
    assert scaled[:2].tolist() == [0.0, 0.0]


def test_sequence_means_leave_out_tokens_of_weight_0():
    batch = make_batch([0.0] * 5, [1.0] * 5, lengths=[3, 2], loss_weights=[0.0, 0.25, 0.25, 0.0, 0.5])
    means = ops.sequence_means(torch.tensor([9.0, 1.0, 2.0, 9.0, 4.0]), batch)
    assert means.tolist() == [1.5, 1.5, 1.5, 4.0, 4.0]


def test_a_sequence_without_counted_tokens_has_mean_0():
    batch = make_batch([0.0] * 2, [1.0] * 2, loss_weights=[0.0, 0.0])
    assert ops.sequence_means(torch.tensor([1.0, 2.0]), batch).tolist() == [0.0, 0.0]
