"""Two real engines in one pool: the second joins late, then the first ends. The tests run in this order."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import ray

from rlframe.cluster import start as cluster
from rlframe.types import SampledCompletion
from tests.rollout.conftest import SAMPLING, prompt
from tests.tiny.engines import sample
from tests.tiny.groups import plain


def completions(samples: list[SampledCompletion]) -> list[dict[str, Any]]:
    """Plain values in the order of the group, without cached tokens, whose number depends on earlier requests."""
    ordered = sorted(samples, key=lambda sampled: sampled.index)
    return plain([replace(sampled.completion, cached_tokens=0) for sampled in ordered])


def generate(actors: cluster.Actors, engine_name: str) -> list[SampledCompletion]:
    engine = actors.rollouts.replicas[engine_name].handle
    return asyncio.run(sample(engine, [prompt("3", "What is 2 + 3?")], SAMPLING))


def next_version(actors: cluster.Actors) -> int:
    """Shifts every value of the learner's weights, and syncs -> the new version."""

    def shift(rank) -> None:
        for parameter in rank.engine.module.parameters():
            parameter.ds_tensor += 0.05

    ray.get([rank.__ray_call__.remote(shift) for rank in actors.learner.ranks])
    actors.learner.version += 1
    actors.weights.sync(actors.learner.version)
    return actors.learner.version


def engines(actors: cluster.Actors) -> list[str]:
    """Names of the engines that serve, from the first to the last that came."""
    return [replica.name for replica in actors.rollouts.replicas.serving()]


def versions(samples: list[SampledCompletion]) -> set[int]:
    return {span.version for sampled in samples for span in sampled.completion.versions}


def test_a_late_engine_samples_the_same_completions_as_the_first(actors: cluster.Actors) -> None:
    (early,) = engines(actors)
    initial = completions(generate(actors, early))
    version = next_version(actors)
    late = actors.add_engine()
    assert late.state == "serving"
    first, second = generate(actors, early), generate(actors, late.name)
    assert versions(first) == versions(second) == {version}
    assert completions(first) == completions(second) != initial
    assert len({tuple(completion["token_ids"]) for completion in initial}) == 4


def test_both_engines_get_new_weights(actors: cluster.Actors) -> None:
    version = next_version(actors)
    first, second = (generate(actors, name) for name in engines(actors))
    assert versions(first) == versions(second) == {version}
    assert completions(first) == completions(second)


def test_weights_come_to_the_engine_that_is_left(actors: cluster.Actors) -> None:
    early, late = engines(actors)
    actors.remove_engine(early)
    version = next_version(actors)
    assert engines(actors) == [late]
    assert versions(generate(actors, late)) == {version}
