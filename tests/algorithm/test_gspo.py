"""GSPO: one ratio a sequence, worked by hand."""

import math

import pytest
import torch

from rlframe.algorithm import GSPO
from tests.tiny.batches import make_batch

WIDE = GSPO(name="gspo", clip_low=0.2, clip_high=0.3)


def loss_and_gradient(
    log_ratios: list[float], advantages: list[float], lengths: list[int]
) -> tuple[list[float], list[float]]:
    """The loss at each token, and the gradient of the mean over sequences."""
    logprobs = torch.tensor([-1.0 + log_ratio for log_ratio in log_ratios], requires_grad=True)
    loss = WIDE.token_loss(logprobs, make_batch([-1.0] * len(log_ratios), advantages, lengths))
    weights = WIDE.token_weights(torch.tensor(lengths, dtype=torch.float32), torch.arange(len(lengths)))
    (loss * weights.repeat_interleave(torch.tensor(lengths))).sum().backward()
    assert logprobs.grad is not None
    return loss.tolist(), logprobs.grad.tolist()


def test_a_sequence_s_ratio_is_the_geometric_mean_of_token_ratios():
    # Ratios 2 and 1/2 cancel: s = 1, as on policy. The second sequence's s is sqrt(1.1 * 1.1) = 1.1.
    loss, _ = loss_and_gradient([math.log(2), -math.log(2), math.log(1.1), math.log(1.1)], [1.0, 1.0, 2.0, 2.0], [2, 2])
    assert loss == pytest.approx([-1.0, -1.0, -2.2, -2.2])


def test_all_tokens_of_a_sequence_have_the_same_gradient():
    # d/dlogprob of -(1/2) s A, s = exp(mean): -(1/2) s A / |y|.
    _, gradient = loss_and_gradient([0.2, 0.0, 0.0, 0.0], [1.0, 1.0, -3.0, -3.0], [2, 2])
    expected = -0.5 * math.exp(0.1) / 2
    assert gradient == pytest.approx([expected, expected, 0.75, 0.75])


def test_a_sequence_is_clipped_as_a_whole():
    # Mean log-ratio 0.3 is a ratio of 1.35, beyond 1.3. The second token alone is within the clip.
    loss, gradient = loss_and_gradient([0.6, 0.0, 0.1], [1.0, 1.0, 1.0], [2, 1])
    assert loss == pytest.approx([-1.3, -1.3, -math.exp(0.1)])
    assert gradient == pytest.approx([0.0, 0.0, -0.5 * math.exp(0.1)])


def test_prompt_tokens_do_not_count_in_a_sequence_s_length():
    batch = make_batch([0.0, -1.0, -1.0], [0.0, 1.0, 1.0], loss_weights=[0.0, 0.5, 0.5])
    loss = WIDE.token_loss(torch.tensor([0.0, -0.9, -0.9]), batch)
    assert loss.tolist()[1:] == pytest.approx([-math.exp(0.1)] * 2)
