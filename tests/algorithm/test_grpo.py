"""GRPO's advantages, token weights and token loss, worked by hand."""

import math

import pytest
import torch
from pydantic import ValidationError

from rlframe.algorithm import GRPO
from tests.tiny.batches import make_batch
from tests.tiny.groups import rewarded

CLIP_FIFTH = GRPO(name="grpo", clip=0.2)


def test_on_policy_loss_and_gradient_are_minus_the_advantage():
    logprobs = torch.tensor([-0.7, -2.3], requires_grad=True)
    loss = CLIP_FIFTH.token_loss(logprobs, make_batch([-0.7, -2.3], [1.5, -0.5]))
    assert loss.tolist() == [-1.5, 0.5]
    loss.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [-1.5, 0.5]


def test_beyond_the_clip_only_a_bad_token_has_a_gradient():
    likelier = math.log(1.5)
    logprobs = torch.tensor([-1.0 + likelier, -1.0 + likelier], requires_grad=True)
    loss = CLIP_FIFTH.token_loss(logprobs, make_batch([-1.0, -1.0], [1.0, -1.0]))
    assert loss.tolist() == pytest.approx([-1.2, 1.5])
    loss.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([0.0, 1.5])


def test_completions_have_equal_weight_whatever_their_length():
    assert CLIP_FIFTH.token_weights(torch.tensor([1.0, 4.0]), torch.tensor([0, 1])).tolist() == [0.5, 0.125]


def test_a_step_of_two_completions_by_hand():
    # Rewards 1 and 0: advantages +-1/sqrt(2). Completions of 1 and 3 tokens, ratio 1.1 throughout, within the clip.
    advantages = CLIP_FIFTH.advantages(rewarded([1.0, 0.0]))
    assert advantages.tolist() == pytest.approx([0.70711, -0.70711], abs=1e-5)
    weights = CLIP_FIFTH.token_weights(torch.tensor([1.0, 3.0]), torch.tensor([0, 1])).repeat_interleave(
        torch.tensor([1, 3])
    )
    per_token = advantages.repeat_interleave(torch.tensor([1, 3])).tolist()
    losses = CLIP_FIFTH.token_loss(torch.full((4,), math.log(1.1)), make_batch([0.0] * 4, per_token))
    assert losses.tolist() == pytest.approx([-0.77782, 0.77782, 0.77782, 0.77782], abs=1e-5)
    assert (losses * weights).sum().item() == pytest.approx(
        0.0, abs=1e-7
    )  # the mean over completions: both losses cancel


def test_a_clip_of_0_would_stop_every_token_and_is_refused():
    with pytest.raises(ValidationError, match="greater than 0"):
        GRPO(name="grpo", clip=0.0)
