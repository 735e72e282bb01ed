"""Sums of the train/rollout mismatch, worked by hand."""

import math
from dataclasses import replace

import pytest
import torch

from rlframe.objective import mismatch
from tests.tiny.batches import make_batch

HALF, DOUBLE = math.log(0.5), math.log(2.0)


def test_current_and_stale_tokens_are_summed_apart():
    batch = make_batch([0.0, -1.0, -1.0, -2.0], [0.0, 1.0, 1.0, 1.0], loss_weights=[0.0, 0.5, 0.5, 0.5])
    batch = replace(batch, stale=torch.tensor([False, False, True, True]))
    logprobs = torch.tensor([-9.0, -1.0 + DOUBLE, -1.0 + HALF, -2.0])
    assert mismatch.measure(logprobs, batch) == pytest.approx(
        {
            "current_tokens": 1,
            "current_k3": 2 - 1 - DOUBLE,  # the learner gives the token twice the engine's probability
            "current_abs": DOUBLE,
            "stale_tokens": 2,
            "stale_k3": 0.5 - 1 - HALF,
            "stale_abs": -HALF,
        }
    )


@pytest.mark.parametrize("rollout, learner", [(-math.inf, -1.0), (-1.0, math.nan), (-math.inf, -math.inf)])
def test_a_token_without_two_finite_log_probabilities_is_left_out(rollout: float, learner: float):
    sums = mismatch.measure(torch.tensor([learner, -1.0 + DOUBLE]), make_batch([rollout, -1.0], [1.0, 1.0]))
    assert (sums["current_tokens"], sums["current_abs"]) == (1, pytest.approx(DOUBLE))


def test_without_recorded_versions_no_token_is_stale():
    sums = mismatch.measure(torch.tensor([-1.0]), make_batch([-1.0], [1.0]))
    assert (sums["current_tokens"], sums["stale_tokens"]) == (1, 0)
