"""Weights on their way from a real ZeRO-3 learner to a real vLLM engine, through Ray's object store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import ray
from transformers import AutoTokenizer

from rlframe.batch.samples import to_samples
from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from rlframe.rollout.vllm import VLLMEngine
from rlframe.types import Completion, Prompt, RolloutGroup, SampledCompletion, Sampling, ScoredGroup
from rlframe.weights.publish import Published
from rlframe.weights.slices import Patch
from tests.conftest import compose, tiny_overrides

SAMPLING = Sampling(completions=4, max_tokens=16, temperature=1.0, seed=1)


TIED = "2 ranks, tied"


@pytest.fixture(scope="module", params=["1 rank, untied", TIED])
def run(request: pytest.FixtureRequest, tiny_model: Path, untied_model: Path) -> RunConfig:
    model, ranks = (tiny_model, 2) if request.param == TIED else (untied_model, 1)
    settings = ["rollout.max_tokens=380", "learner.lr=0.02", "weights.chunk_mib=1", "weights.full_every=1000"]
    return compose([*tiny_overrides(model), *settings, f"learner.ranks={ranks}"])


@pytest.fixture(scope="module")
def actors(run: RunConfig) -> Iterator[cluster.Actors]:
    with cluster.start(run, Path(run.model.path)) as actors:
        yield actors


def prompt(name: str, text: str) -> Prompt:
    return Prompt(id=name, messages=[], token_ids=list(text.encode()), reference="", task="math")


PROMPTS = [prompt("a", "What is 2 + 3?"), prompt("b", "And 40 + 2, then?")]


def draw(actors: cluster.Actors, sampling: Sampling = SAMPLING) -> list[ScoredGroup]:
    """Groups in the order of PROMPTS, with made-up rewards 0, 1, 2, 3 so that every completion pushes."""

    async def collect() -> list[SampledCompletion]:
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


def nudge(actors: cluster.Actors) -> None:
    """The learner's next version, which differs in one value of 50: too few for sending all, enough to be seen."""

    def shift(rank) -> None:
        for parameter in rank.engine.module.parameters():
            parameter.ds_tensor[::50] += 0.5

    ray.get([rank.__ray_call__.remote(shift) for rank in actors.learner.ranks])
    actors.learner.version += 1


def harm(published: Published) -> Published:
    """The same with one value of the last rank's first patch changed."""
    *others, share = published.snapshot.shares
    patches: list[Patch] = ray.get(share.patches[0])
    values = patches[0].values.copy()
    values[0] ^= 1
    broken = share._replace(patches=[ray.put([patches[0]._replace(values=values), *patches[1:]]), *share.patches[1:]])
    return replace(published, snapshot=published.snapshot._replace(shares=[*others, broken]))


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
    first, second = (
        [replace(completion, cached_tokens=0) for group in draw(actors) for completion in group.group.completions]
        for _ in range(2)
    )
    assert first == second
    assert len({tuple(completion.token_ids) for completion in first}) == 8


def test_a_completion_s_text_is_its_tokens_without_the_one_that_ended_it(
    actors: cluster.Actors, run: RunConfig
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(run.model.path)
    sampling = Sampling(completions=32, max_tokens=100, temperature=1.0, seed=3)
    completions = [completion for group in draw(actors, sampling) for completion in group.group.completions]
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion in completions:
        own = completion.token_ids
        if completion.finish_reason == "stop":
            assert own[-1] == tokenizer.eos_token_id
            own = own[:-1]
        assert completion.text == tokenizer.decode(own, skip_special_tokens=True)
        assert len(completion.logprobs) == len(completion.token_ids) and max(completion.logprobs) <= 0


def test_a_group_s_prompt_is_computed_once_in_whole_blocks_of_32_tokens(actors: cluster.Actors) -> None:
    async def cached() -> list[int]:
        prompts = [prompt("long", "What is 1 + 1? " * 5)]  # 75 tokens
        return [drawn.completion.cached_tokens async for drawn in actors.rollouts.generate(prompts, SAMPLING)]

    assert sorted(asyncio.run(cached())) == [0, 64, 64, 64]


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


def test_a_rank_publishes_while_no_other_takes_part(actors: cluster.Actors) -> None:
    share = ray.get(actors.learner.ranks[-1].publish.remote(actors.learner.version, whole=True), timeout=30)
    of_all = actors.learner.weights().bytes
    assert share.bytes == pytest.approx(of_all / len(actors.learner.ranks), rel=0.01)


def test_changed_values_travel_alone_and_engine_and_learner_agree_as_after_a_whole_sync(
    actors: cluster.Actors, run: RunConfig
) -> None:
    whole = actors.learner.weights()
    actors.rollouts.update(whole, version=actors.learner.version)
    for _ in range(2):  # the second brings the changes of both: they are those since the last whole version
        nudge(actors)
    assert disagreement(actors, run) > 0.1
    changes = actors.learner.weights()
    assert changes.bytes < whole.bytes / 20
    actors.rollouts.update(changes, version=actors.learner.version)
    assert disagreement(actors, run) < 2e-3


def test_after_an_optimizer_step_that_changes_every_value_all_travel(actors: cluster.Actors, run: RunConfig) -> None:
    actors.learner.step(to_samples(draw(actors), run.algorithm))
    published = actors.learner.weights()
    assert not any(share.patches for share in published.snapshot.shares)
    actors.rollouts.update(published, version=actors.learner.version)
    assert disagreement(actors, run) < 2e-3


def test_an_engine_with_a_broken_patch_draws_nothing_until_a_whole_sync_has_healed_it(
    actors: cluster.Actors, run: RunConfig
) -> None:
    nudge(actors)
    broken = harm(actors.learner.weights())
    engine = {"rollout-0": actors.rollouts.engines[0]}
    assert broken.deliver(engine, 60)["rollout-0"].differing == ["model.embed_tokens.weight"]

    async def draw_meanwhile() -> list[SampledCompletion]:
        async def collect() -> list[SampledCompletion]:
            return [drawn async for drawn in actors.rollouts.generate([PROMPTS[0]], SAMPLING)]

        drawing = asyncio.ensure_future(collect())
        done, _ = await asyncio.wait([drawing], timeout=2)
        assert not done
        await asyncio.to_thread(actors.rollouts.update, broken, version=actors.learner.version)
        return await drawing

    drawn = asyncio.run(draw_meanwhile())
    assert {span.version for one in drawn for span in one.completion.versions} == {actors.learner.version}
    assert not actors.rollouts.quarantined
    assert not any(share.patches for share in actors.rollouts.current.snapshot.shares)
    assert actors.rollouts.metrics()["rollout/stall_s"] > 2
    assert disagreement(actors, run) < 2e-3


@pytest.mark.parametrize("run", [TIED], indirect=True)
def test_an_engine_that_starts_after_versions_have_passed_draws_with_the_current_one(
    actors: cluster.Actors, run: RunConfig
) -> None:
    nudge(actors)
    actors.rollouts.update(actors.learner.weights(), version=actors.learner.version)
    options = {"num_cpus": 0, "max_concurrency": 100, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}}}
    late = (
        ray.remote(VLLMEngine)
        .options(name="rollout-late", **options)
        .remote("rollout-late", run.rollout, Path(run.model.path), 512, "object_store")
    )
    context = ray.get_runtime_context()
    ray.get(late.join_object_store.remote(context.gcs_address, context.namespace))
    ray.get(actors.rollouts.engines[0].shutdown.remote())
    ray.kill(actors.rollouts.engines[0])
    actors.rollouts.join(late, place=0)
    drawn = draw(actors)
    versions = {span.version for group in drawn for one in group.group.completions for span in one.versions}
    assert versions == {actors.learner.version}
    assert disagreement(actors, run) < 2e-3
    ray.get(late.shutdown.remote())
