"""Weights on their way from a real ZeRO-3 learner of 2 ranks to a real vLLM engine, through Ray's object store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from rlframe import cluster
from rlframe.config import RunConfig
from rlframe.samples import to_samples
from rlframe.types import Completion, Drawn, Prompt, RolloutGroup, Sampling, ScoredGroup
from tests.conftest import compose, tiny_overrides

SAMPLING = Sampling(completions=4, max_tokens=16, temperature=1.0, seed=1)


@pytest.fixture(scope="module", params=["tied", "untied"])
def run(request: pytest.FixtureRequest, tiny_model: Path, untied_model: Path) -> RunConfig:
    model = tiny_model if request.param == "tied" else untied_model
    return compose([*tiny_overrides(model), "rollout.max_tokens=380", "learner.lr=0.02", "weights.chunk_mib=1"])


@pytest.fixture(scope="module")
def actors(run: RunConfig) -> Iterator[cluster.Actors]:
    with cluster.start(run, Path(run.model.path)) as actors:
        yield actors


def prompt(name: str, text: str) -> Prompt:
    return Prompt(id=name, messages=[], token_ids=list(text.encode()), reference="", task="math")


PROMPTS = [prompt("a", "What is 2 + 3?"), prompt("b", "And 40 + 2, then?")]


def draw(actors: cluster.Actors, sampling: Sampling = SAMPLING) -> list[ScoredGroup]:
    """Groups in the order of PROMPTS, with made-up rewards 0, 1, 2, 3 so that every completion pushes."""

    async def collect() -> list[Drawn]:
        return [drawn async for drawn in actors.rollouts.generate(PROMPTS, sampling)]

    drawn = {(one.prompt_id, one.index): one.completion for one in asyncio.run(collect())}
    rewards = [float(index) for index in range(sampling.completions)]
    return [
        ScoredGroup(
            group=RolloutGroup(prompt=p, completions=[drawn[p.id, i] for i in range(sampling.completions)]),
            rewards=list(rewards),
            verdicts={},
        )
        for p in PROMPTS
    ]


def disagreement(actors: cluster.Actors, run: RunConfig) -> float:
    """Largest |engine - learner| over the log-probabilities of freshly drawn tokens."""
    samples = to_samples(draw(actors), run.algorithm)
    learner = ray.get([rank.logprobs.remote(samples) for rank in actors.learner.ranks])[0]
    return max(float(np.abs(s.rollout_logprobs - ours).max()) for s, ours in zip(samples, learner, strict=True))


def test_every_weight_arrives_and_engine_and_learner_agree_before_and_after_updates(
    actors: cluster.Actors, run: RunConfig
) -> None:
    assert disagreement(actors, run) < 2e-3
    for _ in range(3):
        actors.learner.step(to_samples(draw(actors), run.algorithm))
    # At this learning rate three steps move every weight far: the engine's are stale, and it shows.
    assert disagreement(actors, run) > 0.5
    published = actors.learner.weights()
    actors.rollouts.update(published, version=actors.learner.version)
    assert disagreement(actors, run) < 2e-3
    index = json.loads((Path(run.model.path) / "config.json").read_text())
    assert len(published.names) == (20 if index["tie_word_embeddings"] else 21)


def test_the_same_prompts_seed_and_weights_give_the_same_tokens_and_log_probabilities(actors: cluster.Actors) -> None:
    first, second = draw(actors), draw(actors)
    assert [g.group.completions for g in first] == [g.group.completions for g in second]
    tokens = [tuple(completion.token_ids) for group in first for completion in group.group.completions]
    assert len(set(tokens)) == 8


def test_an_update_in_mid_completion_shows_in_its_version_spans(actors: cluster.Actors, run: RunConfig) -> None:
    long = Sampling(completions=4, max_tokens=380, temperature=1.0, seed=2)
    actors.learner.step(to_samples(draw(actors), run.algorithm))
    weights = actors.learner.weights()

    async def draw_through_an_update() -> list[Completion]:
        stream = actors.rollouts.generate([prompt("c", "Count to a hundred")], long)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(actors.rollouts.update, weights, version=actors.learner.version)
        return [(await first).completion, *[drawn.completion async for drawn in stream]]

    before = actors.rollouts.version
    completions = asyncio.run(draw_through_an_update())
    after = actors.rollouts.version
    assert after == before + 1
    crossed = [c for c in completions if len(c.versions) == 2]
    assert crossed, [c.versions for c in completions]
    for completion in crossed:
        old, new = completion.versions
        assert (old.version, old.start, new.version) == (before, 0, after)
        assert old.end == new.start and new.end == len(completion.token_ids)


def test_an_update_with_another_version_than_was_published_is_refused(actors: cluster.Actors) -> None:
    with pytest.raises(ValueError, match="published version"):
        actors.rollouts.update(actors.learner.weights(), version=99)
