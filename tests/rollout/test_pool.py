"""Two real engines in one pool: the second joins late, then the first drains. The tests run in this order."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import ray

from rlframe.cluster import start as cluster
from rlframe.types import SampledCompletion, Sampling
from tests.rollout.conftest import SAMPLING, collect, prompt
from tests.tiny.groups import plain

LONG = replace(SAMPLING, max_tokens=380)


def completions(samples: list[SampledCompletion]) -> list[dict[str, Any]]:
    """Plain values in the order of the group, without cached tokens, whose number depends on earlier requests."""
    ordered = sorted(samples, key=lambda sampled: sampled.index)
    return plain([replace(sampled.completion, cached_tokens=0) for sampled in ordered])


async def generate(actors: cluster.Actors, name: str, sampling: Sampling = SAMPLING) -> list[SampledCompletion]:
    return await collect(actors.rollouts.generate([prompt(name, f"What is 2 + {name}?")], sampling))


def next_version(actors: cluster.Actors) -> None:
    """Shifts every value of the learner's weights, and syncs."""

    def shift(rank) -> None:
        for parameter in rank.engine.module.parameters():
            parameter.ds_tensor += 0.05

    ray.get([rank.__ray_call__.remote(shift) for rank in actors.learner.ranks])
    actors.learner.version += 1
    actors.weights.sync(actors.learner.version)


def versions(samples: list[SampledCompletion]) -> set[int]:
    return {span.version for sampled in samples for span in sampled.completion.versions}


def test_a_late_engine_samples_the_same_completions_as_the_first(actors: cluster.Actors) -> None:
    initial = completions(asyncio.run(generate(actors, "3")))
    next_version(actors)
    first = asyncio.run(generate(actors, "3"))
    late = actors.add_engine()
    assert (late.name, late.state) == ("rollout-1", "serving")

    async def from_the_late_engine() -> list[SampledCompletion]:
        actors.rollouts.replicas["rollout-0"].load += 1  # so that the late one is the least busy
        try:
            samples = asyncio.ensure_future(generate(actors, "3"))
            await asyncio.sleep(0)
            assert actors.rollouts.outstanding == [1, 4]
            return await samples
        finally:
            actors.rollouts.replicas["rollout-0"].load -= 1

    second = asyncio.run(from_the_late_engine())
    assert versions(first) == versions(second) == {1}
    assert completions(first) == completions(second)
    assert completions(first) != initial
    assert len({tuple(completion["token_ids"]) for completion in initial}) == 4


def test_prompts_spread_over_both_engines_and_both_get_new_weights(actors: cluster.Actors) -> None:
    next_version(actors)

    async def from_both_engines() -> list[SampledCompletion]:
        stream = actors.rollouts.generate([prompt("4", "What is 2 + 4?"), prompt("5", "And 5?")], SAMPLING)
        first = await anext(stream)
        assert max(actors.rollouts.outstanding) <= 4
        return [first, *await collect(stream)]

    samples = asyncio.run(from_both_engines())
    assert sorted((sampled.prompt_id, sampled.index) for sampled in samples) == [
        (name, index) for name in ("4", "5") for index in range(4)
    ]
    assert versions(samples) == {2}
    assert actors.rollouts.outstanding == [0, 0]


def test_a_draining_engine_ends_its_work_and_gets_no_more(actors: cluster.Actors) -> None:
    engine = actors.rollouts.replicas["rollout-0"]

    async def drain_meanwhile() -> tuple[list[SampledCompletion], list[SampledCompletion]]:
        running = asyncio.ensure_future(generate(actors, "6", LONG))
        await asyncio.sleep(0.3)
        assert engine.load > 0
        actors.rollouts.replicas.drain("rollout-0")
        assert engine.state == "draining"
        new = [asyncio.ensure_future(generate(actors, name)) for name in ("7", "8", "9")]
        await asyncio.sleep(0)
        assert engine.load > 0 and actors.rollouts.replicas["rollout-1"].load == 12
        return await running, [sampled for group in await asyncio.gather(*new) for sampled in group]

    running, new = asyncio.run(drain_meanwhile())
    assert len(running) == 4 and len(new) == 12
    assert engine.state == "dead"
    assert actors.rollouts.outstanding == [0]
    ray.get(engine.handle.shutdown.remote())
    ray.kill(engine.handle)
    next_version(actors)
    samples = asyncio.run(generate(actors, "3"))
    assert versions(samples) == {3} and len(samples) == 4
