"""RLOO and the plain policy gradient."""

import torch

from rlframe.algorithm import RLOO, Reinforce
from tests.tiny.batches import make_batch
from tests.tiny.groups import rewarded

RLOO_ = RLOO(name="rloo")
PLAIN = Reinforce(name="reinforce")


def test_the_baseline_is_the_mean_of_the_other_rewards():
    assert RLOO_.advantages(rewarded([3.0, 1.0, 2.0])).tolist() == [1.5, -1.5, 0.0]


def test_without_a_baseline_the_advantage_is_the_reward():
    assert PLAIN.advantages(rewarded([1.0, 0.2])).tolist() == torch.tensor([1.0, 0.2]).tolist()


def test_the_gradient_is_minus_the_advantage_at_every_ratio():
    for algorithm in (RLOO_, PLAIN):
        logprobs = torch.tensor([-0.1, -4.0], requires_grad=True)
        algorithm.token_loss(logprobs, make_batch([-3.0, -1.0], [1.5, -0.5])).sum().backward()
        assert logprobs.grad is not None
        assert logprobs.grad.tolist() == [-1.5, 0.5]


def test_the_loss_is_a_mean_over_completions_of_sums_over_tokens():
    for algorithm in (RLOO_, PLAIN):
        weights = algorithm.token_weights(torch.tensor([1.0, 3.0]), torch.tensor([0, 1])).repeat_interleave(
            torch.tensor([1, 3])
        )
        loss = algorithm.token_loss(torch.tensor([-1.0, -2.0, -3.0, -4.0]), make_batch([0.0] * 4, [1.0, 2.0, 2.0, 2.0]))
        assert (loss * weights).sum().item() == (1 * 1 + 2 * (2 + 3 + 4)) / 2
