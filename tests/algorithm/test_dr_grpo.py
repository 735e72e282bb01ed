"""Dr. GRPO: GRPO without the divisions by deviation and by length."""

import math

import pytest
import torch

from rlframe.algorithm import DrGRPO
from tests.tiny.batches import make_batch
from tests.tiny.groups import rewarded

OF_TEN = DrGRPO(name="dr_grpo", clip=0.2, length=10)


def test_advantages_are_not_divided_by_the_deviation():
    assert OF_TEN.advantages(rewarded([1.0, 0.0, 0.0, 0.0])).tolist() == [0.75, -0.25, -0.25, -0.25]


def test_token_weights_do_not_depend_on_lengths():
    assert OF_TEN.token_weights(torch.tensor([1.0, 4.0]), torch.tensor([0, 1])).tolist() == pytest.approx(
        [0.05, 0.05]
    )  # 1 / (2 * 10)
    assert OF_TEN.token_weights(torch.tensor([9.0, 9.0]), torch.tensor([0, 1])).tolist() == pytest.approx([0.05, 0.05])


def test_the_ratio_is_clipped_as_in_grpo():
    logprobs = torch.tensor([-1.0 + math.log(1.5)] * 2, requires_grad=True)
    loss = OF_TEN.token_loss(logprobs, make_batch([-1.0, -1.0], [1.0, -1.0]))
    assert loss.tolist() == pytest.approx([-1.2, 1.5])
    loss.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == pytest.approx([0.0, 1.5])
