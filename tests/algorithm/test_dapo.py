"""DAPO's two differences from GRPO: clip-higher and the mean over tokens."""

import math

import pytest
import torch

from rlframe.algorithm import DAPO
from tests.tiny.batches import make_batch
from tests.tiny.groups import rewarded

PAPER = DAPO(name="dapo", clip_low=0.2, clip_high=0.28)


def loss_and_gradient(ratio: float, advantage: float, algorithm: DAPO = PAPER) -> tuple[float, float]:
    """Loss of a token sampled at log-probability -2, and the gradient in the current log-probability."""
    logprobs = torch.tensor([-2.0 + math.log(ratio)], requires_grad=True)
    loss = algorithm.token_loss(logprobs, make_batch([-2.0], [advantage]))
    loss.sum().backward()
    assert logprobs.grad is not None
    return loss.item(), logprobs.grad.item()


def test_a_good_token_is_pushed_up_to_ratio_1_28():
    assert loss_and_gradient(ratio=1.25, advantage=1.0) == pytest.approx((-1.25, -1.25), rel=1e-5)
    assert loss_and_gradient(ratio=1.30, advantage=1.0) == pytest.approx((-1.28, 0.0), rel=1e-5)


def test_a_bad_token_is_pushed_down_to_ratio_0_8_from_any_ratio():
    assert loss_and_gradient(ratio=0.85, advantage=-1.0) == pytest.approx((0.85, 0.85), rel=1e-5)
    assert loss_and_gradient(ratio=0.75, advantage=-1.0) == pytest.approx((0.8, 0.0), rel=1e-5)
    assert loss_and_gradient(ratio=3.0, advantage=-1.0) == pytest.approx((3.0, 3.0), rel=1e-5)


def test_a_dual_clip_of_3_stops_a_bad_token_beyond_ratio_3():
    dual = DAPO(name="dapo", clip_low=0.2, clip_high=0.28, dual_clip=3.0)
    assert loss_and_gradient(ratio=2.0, advantage=-1.0, algorithm=dual) == pytest.approx((2.0, 2.0), rel=1e-5)
    assert loss_and_gradient(ratio=5.0, advantage=-1.0, algorithm=dual) == pytest.approx((3.0, 0.0), rel=1e-5)


def test_all_tokens_have_equal_weight_whatever_the_completion_s_length():
    weights = PAPER.token_weights(torch.tensor([1.0, 4.0]), torch.tensor([0, 1]))
    assert weights.tolist() == pytest.approx([0.2, 0.2])


def test_advantages_are_standardized_as_in_grpo():
    assert PAPER.advantages(rewarded([1.0, 1.0, 0.0, 0.0])).tolist() == pytest.approx(
        [0.8660, 0.8660, -0.8660, -0.8660], abs=1e-4
    )  # deviation of 1, 1, 0, 0 over n - 1: sqrt(1/3)
