"""Progress of a real engine, and chosen completions of a group."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import ray

from rlframe.cluster import start as cluster
from rlframe.rollout.messages import EngineProgress
from rlframe.types import SampledCompletion
from tests.rollout.conftest import SAMPLING, engine, prompt
from tests.tiny.engines import sample, sample_through
from tests.tiny.groups import plain

PROMPTS = [prompt("p", "What is 7 + 8?"), prompt("q", "And 30 - 4?")]


def progress(actors: cluster.Actors) -> EngineProgress:
    return ray.get(engine(actors).progress.remote())


def tokens(samples: list[SampledCompletion]) -> int:
    return sum(len(sampled.completion.token_ids) for sampled in samples)


def test_every_sampled_token_is_counted_once(actors: cluster.Actors) -> None:
    before = progress(actors)
    samples = asyncio.run(sample(engine(actors), PROMPTS, SAMPLING))
    after = progress(actors)
    assert after.tokens - before.tokens == tokens(samples)
    assert after.busy_slot_s > before.busy_slot_s
    assert (after.version, after.loading) == (actors.rollouts.version, False)


def test_an_idle_engine_has_no_busy_slots(actors: cluster.Actors) -> None:
    asyncio.run(sample(engine(actors), PROMPTS[:1], SAMPLING))
    first = progress(actors)
    ray.get(engine(actors).stamp.remote(first.version))  # takes a while
    assert progress(actors).busy_slot_s == first.busy_slot_s


def test_tokens_of_unfinished_completions_count(actors: cluster.Actors) -> None:
    async def meanwhile() -> tuple[int, int, int]:
        start = await engine(actors).progress.remote()
        running = asyncio.ensure_future(sample(engine(actors), PROMPTS, replace(SAMPLING, max_tokens=200)))
        seen = start
        while seen.tokens == start.tokens:
            seen = await engine(actors).progress.remote()
        samples = await running
        return start.tokens, seen.tokens, tokens(samples)

    start, seen, sampled = asyncio.run(meanwhile())
    assert start < seen <= start + sampled
    assert progress(actors).tokens == start + sampled


def test_a_load_recomputes_the_prompt_and_the_tokens_so_far(actors: cluster.Actors) -> None:
    before = progress(actors)
    actors.learner.version += 1
    long = replace(SAMPLING, completions=1, max_tokens=380)
    snapshot = ray.put(actors.learner.publish(whole=True))
    ((sampled,),) = asyncio.run(sample_through(engine(actors), snapshot, (PROMPTS[0], long)))
    old, new = sampled.completion.versions
    assert (old.version, new.version) == (before.version, before.version + 1)
    assert progress(actors).recomputed_tokens - before.recomputed_tokens == len(PROMPTS[0].token_ids) + old.end


def test_chosen_completions_are_those_of_the_whole_group(actors: cluster.Actors) -> None:
    group = asyncio.run(sample(engine(actors), PROMPTS, SAMPLING))
    chosen = asyncio.run(sample(engine(actors), PROMPTS, SAMPLING, {"p": [2], "q": [3, 0]}))
    assert [(sampled.prompt_id, sampled.index) for sampled in chosen] == [("p", 2), ("q", 0), ("q", 3)]
    whole = {(sampled.prompt_id, sampled.index): sampled.completion.token_ids.tolist() for sampled in group}
    for sampled in chosen:
        assert sampled.completion.token_ids.tolist() == whole[sampled.prompt_id, sampled.index]
    assert len(plain([sampled.completion for sampled in chosen])) == 3
