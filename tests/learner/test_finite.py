"""Errors name the samples with numbers that are not finite, the value and the token."""

from __future__ import annotations

import math

import numpy as np
import torch

from rlframe.batch.collate import collate
from rlframe.learner.finite import not_finite
from rlframe.training import TrainSample


def sample(prompt_id: str, length: int, prompt_tokens: int = 0) -> TrainSample:
    zeros = np.zeros(length, np.float32)
    return TrainSample(
        prompt_id=prompt_id,
        prefix_tokens=prompt_tokens,
        token_ids=np.arange(length, dtype=np.int32),
        sampled=np.arange(length) >= prompt_tokens,
        rollout_logprobs=zeros,
        advantages=zeros,
        loss_weights=zeros,
        mean_weights=zeros,
    )


SAMPLES = [sample("a", 3), sample("b", 4), sample("c", 2)]


def lines(**values: list[float]) -> list[str]:
    return not_finite(SAMPLES, collate(SAMPLES), {name: torch.tensor(value) for name, value in values.items()})


def test_a_batch_of_finite_numbers_names_no_sample():
    assert lines(loss=[0.0] * 9, advantage=[3e38] * 9) == []


def test_a_line_names_the_sample_its_token_and_the_value():
    loss = [0.0] * 9
    loss[5] = math.nan  # token 2 of the second sample, which starts at 3
    assert lines(loss=loss) == ["prompt b: its loss is nan at token 2 of 4"]


def test_a_line_names_only_the_first_bad_value_of_a_sample():
    logprob, loss = [0.0] * 9, [0.0] * 9
    logprob[7], loss[7], loss[0] = -math.inf, math.nan, math.inf
    assert lines(logprob=logprob, loss=loss) == [
        "prompt a: its loss is inf at token 0 of 3",
        "prompt c: its logprob is -inf at token 0 of 2",
    ]


def test_a_token_behind_a_shared_prompt_is_numbered_in_its_own_sample():
    samples = [sample("a", 5, prompt_tokens=3), sample("a", 6, prompt_tokens=3), sample("b", 2)]
    loss = torch.zeros(10)  # 5 of the first sample, 3 of the second behind the shared prompt, 2 of the last
    loss[6], loss[9] = math.nan, math.inf
    assert not_finite(samples, collate(samples), {"loss": loss}) == [
        "prompt a: its loss is nan at token 4 of 6",
        "prompt b: its loss is inf at token 1 of 2",
    ]
