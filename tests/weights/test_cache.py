"""A real engine that keeps keys and values at a load (rollout.cache=keep), and loads beside training."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from rlframe.types import Completion, Prompt, SampledCompletion, SampledTokens, Sampling, VersionSpan
from tests.conftest import compose, tiny_overrides
from tests.tiny.engines import sample, sample_through
from tests.tiny.models import byte_tokenizer
from tests.weights.test_sync import disagreement, nudge, prompt, sync

SLOTS = 2
GROUP = Sampling(completions=4, max_tokens=4, temperature=1.0, seed=3)
LONG = Sampling(completions=SLOTS, max_tokens=380, temperature=1.0, seed=3)
QUEUE = replace(LONG, completions=4 * SLOTS)  # keeps what comes behind it waiting, also beside other work
QUESTION = prompt("question", "What is 1 + 1? " * 5)  # 75 tokens: two blocks of 32 for the cache


@pytest.fixture(scope="module")
def run(tiny_model: Path) -> RunConfig:
    engine = ["rollout.cache=keep", f"rollout.max_concurrent={SLOTS}", "rollout.max_tokens=380"]
    settings = ["max_staleness=1", "learner.ranks=1", "learner.lr=0.02", "weights.full_every=1000"]
    return compose([*tiny_overrides(tiny_model), *engine, *settings])


def handle(actors: cluster.Actors):
    return actors.rollouts.replicas["rollout-0"].handle


def cached(actors: cluster.Actors, sampling: Sampling = GROUP) -> list[int]:
    """Cached prompt tokens of the question's completions, in increasing order."""
    samples = asyncio.run(sample(handle(actors), [QUESTION], sampling))
    return sorted(sampled.completion.cached_tokens for sampled in samples)


def next_version(actors: cluster.Actors) -> None:
    nudge(actors)
    sync(actors)
    actors.weights.settle()


def versions(completion: Completion) -> list[int]:
    return [span.version for span in completion.versions]


def sample_through_a_load(actors: cluster.Actors, *groups: tuple[Any, ...]) -> list[list[SampledCompletion]]:
    """Groups in flight while the engine loads the learner's next version."""
    nudge(actors)
    return asyncio.run(sample_through(handle(actors), ray.put(actors.learner.publish(whole=False)), *groups))


@pytest.fixture(scope="module")
def long_prompt(actors: cluster.Actors) -> Prompt:
    """A prompt whose completions, under LONG, keep all slots until they are cut off."""
    prompts = [prompt(f"long-{index}", f"Count from {index}") for index in range(20)]
    samples = asyncio.run(sample(handle(actors), prompts, LONG))
    lengths = {asked.id: [] for asked in prompts}
    for sampled in samples:
        lengths[sampled.prompt_id].append(len(sampled.completion.token_ids))
    return next(asked for asked in prompts if min(lengths[asked.id]) > 200)


def test_a_prompt_finds_keys_of_its_version_and_of_no_other(actors: cluster.Actors) -> None:
    assert cached(actors)[0] == 0
    assert cached(actors) == [64] * 4
    next_version(actors)
    assert cached(actors) == [0, 64, 64, 64]
    assert cached(actors) == [64] * 4


def test_a_completion_in_flight_goes_on_without_recomputation(actors: cluster.Actors, long_prompt: Prompt) -> None:
    before = ray.get(handle(actors).progress.remote())
    (group,) = sample_through_a_load(actors, (long_prompt, LONG))
    new = actors.learner.version
    assert [versions(sampled.completion) for sampled in group] == [[new - 1, new]] * SLOTS
    after = ray.get(handle(actors).progress.remote())
    assert after.recomputed_tokens == before.recomputed_tokens
    assert (after.version, after.loading) == (new, False)


def test_a_prompt_that_waits_through_a_load_finds_no_old_keys(actors: cluster.Actors, long_prompt: Prompt) -> None:
    cached(actors)
    assert cached(actors) == [64] * 4
    one = replace(GROUP, completions=1)
    _, (waiting,) = sample_through_a_load(actors, (long_prompt, QUEUE), (QUESTION, one))
    assert versions(waiting.completion) == [actors.learner.version]
    assert waiting.completion.cached_tokens == 0


def test_a_stop_text_that_another_engine_began_is_found_after_a_load(
    actors: cluster.Actors, long_prompt: Prompt
) -> None:
    """Completions wait behind the tokens "zyxa" of another engine, and end with any "a" and another character."""
    token_ids = np.array(byte_tokenizer()("zyxa", add_special_tokens=False)["input_ids"], np.int32)
    given = SampledTokens(
        start=0,
        token_ids=token_ids,
        logprobs=np.full(4, -1.0, np.float32),
        versions=[VersionSpan(version=actors.learner.version, start=0, end=4)],
    )
    places = list(range(16))
    stopping = replace(GROUP, completions=16, max_tokens=40, stop=[f"a{chr(code)}" for code in range(33, 127)])
    waiting = (QUESTION, stopping, {QUESTION.id: places}, {QUESTION.id: dict.fromkeys(places, given)})
    _, samples = sample_through_a_load(actors, (long_prompt, QUEUE), waiting)
    texts = [sampled.completion.text for sampled in samples]
    assert {text[:4] for text in texts} == {"zyxa"}
    stopped = [text for text in texts if "!" <= text[4:5] <= "~"]
    assert len(stopped) >= 3 and {len(text) for text in stopped} == {5}


def test_engine_and_learner_agree_after_loads_beside_training(actors: cluster.Actors, run: RunConfig) -> None:
    for _ in range(3):
        nudge(actors)
        synced = sync(actors)
    assert actors.rollouts.oldest_version >= actors.learner.version - 1
    assert synced.engines_behind <= 1
    actors.weights.settle()
    assert actors.rollouts.oldest_version == actors.learner.version
    assert disagreement(actors, run) < 2e-3
