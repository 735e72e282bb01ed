"""ScaleRL's loss: advantages, token weights and token loss, worked by hand."""

import math

import pytest
import torch

from rlframe.algorithm import ScaleRL, rate
from tests.tiny.batches import make_batch
from tests.tiny.groups import make_record

SCALERL = ScaleRL(name="scalerl", cap=2.0)


def test_advantages_are_centred_by_prompt_and_scaled_by_the_step():
    # Centred: 1/2, -1/2, 0, 0; deviation over n - 1: sqrt(1/2 / 3) = 0.40825.
    first, second = rate([make_record([1.0, 0.0], [5, 1]), make_record([1.0, 1.0], [1, 1])], SCALERL)
    assert first.advantages == pytest.approx([1.22474, -1.22474], abs=1e-4)
    assert second.advantages == [0.0, 0.0]


def test_prompts_have_equal_weight_and_so_have_tokens_of_a_prompt():
    # Two prompts of 1 + 3 and 5 + 5 tokens: 1 / (2 * 4) and 1 / (2 * 10) a token.
    weights = SCALERL.token_weights(torch.tensor([1.0, 3.0, 5.0, 5.0]), torch.tensor([0, 0, 1, 1]))
    assert weights.tolist() == pytest.approx([1 / 8, 1 / 8, 1 / 20, 1 / 20])


def test_a_ratio_beyond_the_cap_pulls_like_the_cap():
    logprobs = torch.tensor([-1.0 + math.log(1.5), -1.0 + math.log(3.0)], requires_grad=True)
    loss = SCALERL.token_loss(logprobs, make_batch([-1.0, -1.0], [1.0, -2.0]))
    loss.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([-1.5, 4.0])  # -min(r, 2) A
