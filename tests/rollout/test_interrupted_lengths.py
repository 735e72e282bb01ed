"""Interruptions leave the lengths of completions as they are, since each goes on after its tokens."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from rlframe.rollout.messages import EngineBounds, EngineProgress
from rlframe.rollout.requests import request_seed
from rlframe.types import Prompt, SampledTokens, Sampling
from tests.tiny.mortal_engines import MortalEngine, Watch, on_virtual_clock

PROMPTS, GROUP = 250, 16  # 4,000 completions
MEDIAN, SPREAD = 60.0, 0.8  # of the lengths: a lognormal distribution with a long tail
BOUND = 0.05  # of the Kolmogorov-Smirnov distance; chance alone gives 0.03 in one of 20 tries of 4,000 completions


class RandomLengths(MortalEngine):
    """Decides token by token whether a completion ends there, with the noise of the request."""

    def length(self, prompt: Prompt, index: int, sampling: Sampling, given: SampledTokens | None) -> int:
        first = given.end if given else 0
        uniform = random.Random(request_seed(sampling.seed, prompt.id, index, first)).random()
        passed = NormalDist().cdf(math.log(first / MEDIAN) / SPREAD) if first else 0.0
        quantile = min(passed + uniform * (1 - passed), 1 - 1e-9)  # of the lengths beyond the given tokens
        return max(first + 1, math.ceil(MEDIAN * math.exp(SPREAD * NormalDist().inv_cdf(quantile))))


class Forgetful(RandomLengths):
    """Tells no tokens, so the next engine begins at the first one, with noise of its own."""

    noise = random.Random(7)

    def length(self, prompt: Prompt, index: int, sampling: Sampling, given: SampledTokens | None) -> int:
        return super().length(prompt, index, replace(sampling, seed=self.noise.getrandbits(32)), given)

    async def progress(self, with_partials: bool = False) -> EngineProgress:
        return await super().progress(with_partials=False)


def sampled(engine: type[RandomLengths], deaths: bool) -> tuple[list[int], float]:
    """The lengths of all completions, and the share of completions that were interrupted."""

    async def run() -> tuple[list[int], float]:
        rng = random.Random(3)
        run = Watch(engines={f"rollout-{n}": engine(f"rollout-{n}", slots=100) for n in range(10)})
        run.sampler.bounds = EngineBounds(silence_s=60.0, first_token_s=60.0, attempts=1000)
        for prompt in range(PROMPTS):
            run.sample(**{f"p{prompt}": [0] * GROUP})
        number = 10
        interrupted: set[tuple[str, int]] = set()
        while run.sampler.unfinished:
            await asyncio.sleep(rng.uniform(1.5, 4.8))
            if deaths and run.sampler.engines:
                doomed = run.engines[rng.choice(list(run.sampler.engines))]
                interrupted |= {request.asked[1:] for request in doomed._running}
                doomed.die()
                await asyncio.sleep(0.01)
                await run.join(engine(f"rollout-{number}", slots=100))
                number += 1
        lengths = [len(completion.token_ids) for completion in run.completions.values()]
        return lengths, len(interrupted) / len(lengths)

    return on_virtual_clock(run)


def distance(one: list[int], other: list[int]) -> float:
    """The Kolmogorov-Smirnov distance: the largest difference of the shares of lengths up to any bound."""
    bounds = np.unique([*one, *other])
    shares = [np.searchsorted(np.sort(lengths), bounds, side="right") / len(lengths) for lengths in (one, other)]
    return float(np.abs(shares[0] - shares[1]).max())


def test_the_distance_of_lengths_worked_out_by_hand() -> None:
    assert distance([1, 2, 3, 4], [1, 2, 3, 4]) == 0
    assert distance([1, 2, 3, 4], [3, 4, 5, 6]) == pytest.approx(0.5)  # up to 2: a half against none


def test_deaths_do_not_move_lengths_and_sampling_anew_does() -> None:
    calm, _ = sampled(RandomLengths, deaths=False)
    interrupted, share = sampled(RandomLengths, deaths=True)
    redrawn, control_share = sampled(Forgetful, deaths=True)
    assert len(calm) == len(interrupted) == len(redrawn) == PROMPTS * GROUP
    assert 0.15 < share < 0.25
    assert 0.15 < control_share < 0.25
    assert distance(calm, interrupted) <= BOUND < distance(calm, redrawn)
