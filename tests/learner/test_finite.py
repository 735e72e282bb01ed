"""Samples with a number that is not finite are named, with what it is and where."""

from __future__ import annotations

import math

import numpy as np
import torch

from rlframe.batch.samples import collate
from rlframe.learner.finite import not_finite
from rlframe.types import TrainSample


def sample(prompt_id: str, length: int, prompt_tokens: int = 0) -> TrainSample:
    zeros = np.zeros(length, np.float32)
    return TrainSample(
        prompt_id=prompt_id,
        prompt_tokens=prompt_tokens,
        token_ids=np.arange(length, dtype=np.int32),
        rollout_logprobs=zeros,
        advantages=zeros,
        loss_weights=zeros,
    )


SAMPLES = [sample("a", 3), sample("b", 4), sample("c", 2)]


def told(**values: list[float]) -> list[str]:
    return not_finite(SAMPLES, collate(SAMPLES), {name: torch.tensor(value) for name, value in values.items()})


def test_a_batch_of_finite_numbers_names_nobody():
    assert told(loss=[0.0] * 9, advantage=[3e38] * 9) == []


def test_the_sample_is_named_with_its_own_token_and_the_value():
    loss = [0.0] * 9
    loss[5] = math.nan  # token 2 of the second sample, which begins at 3
    assert told(loss=loss) == ["prompt b: its loss is nan at token 2 of 4"]


def test_of_what_follows_from_each_other_the_first_is_told_for_each_sample():
    logprob, loss = [0.0] * 9, [0.0] * 9
    logprob[7], loss[7], loss[0] = -math.inf, math.nan, math.inf
    assert told(logprob=logprob, loss=loss) == [
        "prompt a: its loss is inf at token 0 of 3",
        "prompt c: its logprob is -inf at token 0 of 2",
    ]


def test_a_sample_that_continues_a_shared_prompt_is_named_with_its_own_token():
    samples = [sample("a", 5, prompt_tokens=3), sample("a", 6, prompt_tokens=3), sample("b", 2)]
    loss = torch.zeros(10)  # 5 of the first, 3 that the second holds itself, 2 of the last
    loss[6], loss[9] = math.nan, math.inf
    assert not_finite(samples, collate(samples), {"loss": loss}) == [
        "prompt a: its loss is nan at token 4 of 6",
        "prompt b: its loss is inf at token 1 of 2",
    ]
