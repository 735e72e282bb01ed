"""Greedy sampling and cut distributions of a real engine.

The file's name puts these tests before those of `test_pool.py`, whose steps sharpen the engine's policy to one token.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlframe.cluster import start as cluster
from rlframe.types import Sampling
from tests.rollout.test_vllm import PROMPTS, sample, tokens


def test_greedy_completions_are_the_same_under_any_seed_and_as_top_k_1(actors: cluster.Actors) -> None:
    greedy = Sampling(completions=2, max_tokens=32, temperature=0.0, seed=1)
    first = sample(actors, PROMPTS, greedy)
    assert tokens(first) == tokens(sample(actors, PROMPTS, replace(greedy, seed=2)))
    assert tokens(first[:1]) == tokens(first[1:2]) != tokens(first[2:3])
    only_one = sample(actors, PROMPTS, replace(greedy, temperature=1.0, top_k=1))
    assert tokens(only_one) == tokens(first)
    assert max(abs(completion.logprobs).max() for completion in only_one) < 1e-5  # the only token has probability 1


@pytest.mark.parametrize("cut", [{"top_k": 3}, {"top_p": 0.3}, {"min_p": 0.5}])
def test_log_probabilities_are_of_the_cut_distribution(actors: cluster.Actors, cut: dict[str, Any]) -> None:
    cut_sampling = Sampling(completions=32, max_tokens=1, temperature=1.0, seed=1, **cut)
    probability = {
        int(completion.token_ids[0]): float(np.exp(completion.logprobs[0]))
        for completion in sample(actors, PROMPTS[:1], cut_sampling)
    }
    assert 1 < len(probability) < 32
    assert sum(probability.values()) == pytest.approx(1.0, abs=0.1)  # all tokens that are left, but for rare ones
