"""GMPO: the geometric mean of token ratios, each clipped."""

import math

import pytest
import torch

from rlframe.algorithm import GMPO
from tests.tiny.batches import make_batch

PAPER = GMPO(name="gmpo", clip=0.4)


def loss_and_gradient(log_ratios: list[float], advantage: float) -> tuple[float, list[float]]:
    """The loss of one sequence, and the gradient in each log-probability."""
    count = len(log_ratios)
    logprobs = torch.tensor([-3.0 + log_ratio for log_ratio in log_ratios], requires_grad=True)
    loss = PAPER.token_loss(logprobs, make_batch([-3.0] * count, [advantage] * count))
    assert len(set(loss.tolist())) == 1
    (loss / count).sum().backward()
    assert logprobs.grad is not None
    return loss[0].item(), logprobs.grad.tolist()


def test_within_the_clip_the_loss_is_minus_advantage_times_geometric_mean():
    loss, gradient = loss_and_gradient([math.log(1.2), math.log(0.9)], 2.0)
    mean = math.sqrt(1.2 * 0.9)
    assert loss == pytest.approx(-2.0 * mean)
    assert gradient == pytest.approx([-mean, -mean])  # A s / |o| each


def test_a_good_token_beyond_the_clip_has_no_gradient():
    loss, gradient = loss_and_gradient([1.0, 0.2], 1.0)  # log-ratio 1 is clipped to 0.4: mean 0.3
    assert loss == pytest.approx(-math.exp(0.3))
    assert gradient == pytest.approx([0.0, -math.exp(0.3) / 2])


def test_a_bad_token_is_clipped_below_but_not_above():
    loss, gradient = loss_and_gradient([-1.0, 1.0], -1.0)  # log-ratios -0.4 and 1: mean 0.3
    assert loss == pytest.approx(math.exp(0.3))
    assert gradient == pytest.approx([0.0, math.exp(0.3) / 2])


def test_the_loss_equals_the_product_in_the_paper():
    ratios, advantage = [1.7, 0.5, 1.1], -1.5
    low, high = math.exp(-0.4), math.exp(0.4)
    product = math.prod(abs(min(r * advantage, min(max(r, low), high) * advantage)) for r in ratios)
    # The root of the product of |A| r is |A| times the root of the product of r.
    assert loss_and_gradient([math.log(r) for r in ratios], advantage)[0] == pytest.approx(product ** (1 / 3))
