"""CISPO: the clipped ratio is a weight."""

import math

import pytest
import torch

from rlframe.algorithm import CISPO
from tests.tiny.batches import make_batch

AT_MOST_FIVE = CISPO(name="cispo", clip_high=4.0)


def gradients(ratios: list[float], advantages: list[float]) -> list[float]:
    logprobs = torch.tensor([-2.0 + math.log(ratio) for ratio in ratios], requires_grad=True)
    AT_MOST_FIVE.token_loss(logprobs, make_batch([-2.0] * len(ratios), advantages)).sum().backward()
    assert logprobs.grad is not None
    return logprobs.grad.tolist()


def test_the_gradient_is_minus_the_ratio_times_the_advantage():
    assert gradients([1.0, 1.5, 0.1], [2.0, -1.0, 1.0]) == pytest.approx([-2.0, 1.5, -0.1])


def test_beyond_the_bound_a_token_keeps_the_gradient_of_the_bound():
    assert gradients([8.0, 8.0], [1.0, -1.0]) == pytest.approx([-5.0, 5.0])


def test_the_loss_is_minus_weight_times_advantage_times_log_probability():
    loss = AT_MOST_FIVE.token_loss(torch.tensor([-1.0]), make_batch([-1.0 - math.log(2)], [3.0]))
    assert loss.item() == pytest.approx(6.0)  # -2 * 3 * -1


def test_every_token_of_the_step_weighs_the_same():
    assert AT_MOST_FIVE.token_weights(torch.tensor([1.0, 4.0]), torch.tensor([0, 1])).tolist() == pytest.approx(
        [0.2, 0.2]
    )
