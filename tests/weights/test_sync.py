"""Weight sync from a real ZeRO-3 learner to a real vLLM engine, through Ray's object store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import ray

from rlframe.algorithm import rate
from rlframe.batch.samples import to_samples
from rlframe.batch.sequences import to_train_sample
from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from rlframe.learner.group import LearnerGroup
from rlframe.training import GroupRecord
from rlframe.types import Completion, Prompt, RolloutGroup, SampledCompletion, Sampling, ScoredGroup
from rlframe.weights.shards import Delta
from rlframe.weights.snapshot import Snapshot
from rlframe.weights.sync import Synced
from tests.conftest import compose, tiny_overrides
from tests.tiny.engines import sample
from tests.tiny.groups import recorded
from tests.tiny.learner import logprobs

SAMPLING = Sampling(completions=4, max_tokens=16, temperature=1.0, seed=1)


@pytest.fixture(scope="module")
def run(tiny_model: Path) -> RunConfig:
    """Two ranks and tied embeddings; `tests/rollout/test_weights.py` has one rank and untied ones."""
    settings = ["rollout.max_tokens=380", "learner.lr=0.02", "weights.chunk_mib=1", "weights.full_every=1000"]
    return compose([*tiny_overrides(tiny_model), *settings])


def prompt(name: str, text: str) -> Prompt:
    return Prompt(id=name, messages=[], token_ids=list(text.encode()), reference="", task="math")


PROMPTS = [prompt("a", "What is 2 + 3?"), prompt("b", "And 40 + 2, then?")]


def sample_groups(actors: cluster.Actors, sampling: Sampling = SAMPLING) -> list[ScoredGroup]:
    """A group of each prompt, engines in turn. Rewards 0, 1, 2, 3 let every completion move the policy."""
    engines = cycle(actors.rollouts.replicas.serving())

    async def collect() -> list[list[SampledCompletion]]:
        calls = [sample(engine.handle, [prompt], sampling) for engine, prompt in zip(engines, PROMPTS, strict=False)]
        return await asyncio.gather(*calls)

    return [
        ScoredGroup(
            group=RolloutGroup.single_turn(prompt, [sampled.completion for sampled in samples]),
            rewards=[float(sampled.index) for sampled in samples],
            verdicts={},
        )
        for prompt, samples in zip(PROMPTS, asyncio.run(collect()), strict=True)
    ]


def sample_records(actors: cluster.Actors) -> list[GroupRecord]:
    return [recorded(group) for group in sample_groups(actors)]


def step(actors: cluster.Actors, run: RunConfig) -> None:
    """Samples groups, and trains the learner on them."""
    actors.learner.step(to_samples(rate(sample_records(actors), run.algorithm), run.algorithm))


def disagreement(actors: cluster.Actors, run: RunConfig) -> float:
    """Largest |engine - learner| over the log-probabilities of newly sampled tokens."""
    planned = to_samples(rate(sample_records(actors), run.algorithm), run.algorithm)
    samples = [to_train_sample(sample, sample.body) for sample in planned]
    learner = logprobs(actors.learner.ranks, samples)
    return max(float(np.abs(s.rollout_logprobs - ours).max()) for s, ours in zip(samples, learner, strict=True))


def nudge(actors: cluster.Actors) -> None:
    """The learner's next version. One value in 50 changes: few enough for deltas, enough to disagree."""

    def shift(rank) -> None:
        for parameter in rank.engine.module.parameters():
            parameter.ds_tensor[::50] += 0.5

    ray.get([rank.__ray_call__.remote(shift) for rank in actors.learner.ranks])
    actors.learner.version += 1


def sync(actors: cluster.Actors) -> Synced:
    return actors.weights.sync(actors.learner.version)


def end_engine(actors: cluster.Actors, name: str) -> None:
    engine = actors.rollouts.replicas[name].handle
    actors.rollouts.replicas.end(name)
    ray.get(engine.shutdown.remote())
    ray.kill(engine)


def deltas(actors: cluster.Actors) -> list:
    """Of the version that the engines hold."""
    return [ref for rank in actors.weights.current.ranks for ref in rank.deltas]


def harmed(snapshot: Snapshot) -> Snapshot:
    """The same version with one value of the last rank's first delta changed."""
    *ranks, last = snapshot.ranks
    first, *others = ray.get(last.deltas[0])
    values = first.values.copy()
    values[0] ^= 1
    bucket_deltas: list[Delta] = [first._replace(values=values), *others]
    broken = replace(last, deltas=[ray.put(bucket_deltas), *last.deltas[1:]])
    return replace(snapshot, ranks=[*ranks, broken])


class HarmingLearner:
    """The learner, but for harmed deltas of each version; whole versions are intact."""

    def __init__(self, learner: LearnerGroup) -> None:
        self.learner = learner

    def publish(self, *, whole: bool) -> Snapshot:
        snapshot = self.learner.publish(whole=whole)
        return snapshot if whole else harmed(snapshot)


def sample_through_an_update(actors: cluster.Actors) -> list[Completion]:
    """Four long completions of a prompt, during which the engines take the learner's version."""
    long = Sampling(completions=4, max_tokens=380, temperature=1.0, seed=2)

    async def collect() -> list[Completion]:
        engine = actors.rollouts.replicas.serving()[0].handle
        start = seen = await engine.progress.remote()
        running = asyncio.ensure_future(sample(engine, [prompt("c", "Count to a hundred")], long))
        while seen.tokens < start.tokens + 20:
            seen = await engine.progress.remote()
        await asyncio.to_thread(sync, actors)
        return [sampled.completion for sampled in await running]

    return asyncio.run(collect())


def test_every_weight_arrives_and_engine_and_learner_agree(actors: cluster.Actors, run: RunConfig) -> None:
    assert disagreement(actors, run) < 2e-3
    for _ in range(3):
        step(actors, run)
    # At this learning rate three steps move every weight far, so the engine's stale weights show.
    assert disagreement(actors, run) > 0.5
    sync(actors)
    assert disagreement(actors, run) < 2e-3
    assert len(actors.weights.current.names) == 20


def test_an_update_in_mid_completion_shows_in_its_version_spans(actors: cluster.Actors, run: RunConfig) -> None:
    step(actors, run)
    old_version = actors.rollouts.version
    completions = sample_through_an_update(actors)
    new_version = actors.rollouts.version
    assert new_version == old_version + 1
    crossed = [c for c in completions if len(c.versions) == 2]
    assert crossed, [c.versions for c in completions]
    for completion in crossed:
        old, new = completion.versions
        assert (old.version, old.start, new.version) == (old_version, 0, new_version)
        assert old.end == new.start and new.end == len(completion.token_ids)


def test_a_sync_to_another_version_than_the_learner_s_is_refused(actors: cluster.Actors) -> None:
    with pytest.raises(ValueError, match="published version"):
        actors.weights.sync(99)


def test_a_rank_publishes_while_no_other_takes_part(actors: cluster.Actors) -> None:
    last_rank = actors.learner.ranks[-1].publish.remote(actors.learner.version, whole=True)
    rank_bytes = ray.get(last_rank, timeout=30).bytes
    all_bytes = actors.learner.publish(whole=False).bytes
    assert rank_bytes == pytest.approx(all_bytes / len(actors.learner.ranks), rel=0.01)


def test_deltas_travel_alone_and_engine_and_learner_agree(actors: cluster.Actors, run: RunConfig) -> None:
    whole = sync(actors)
    for _ in range(2):  # the deltas are the changes of both, since the last whole version
        nudge(actors)
    assert disagreement(actors, run) > 0.1
    assert sync(actors).bytes < whole.bytes / 20
    assert disagreement(actors, run) < 2e-3


def test_all_values_travel_after_an_optimizer_step_that_changes_all(actors: cluster.Actors, run: RunConfig) -> None:
    step(actors, run)
    synced = sync(actors)
    assert not deltas(actors) and not synced.repaired
    assert disagreement(actors, run) < 2e-3


def test_an_engine_with_a_broken_delta_samples_nothing_until_repaired(
    actors: cluster.Actors, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    nudge(actors)
    engine = actors.rollouts.replicas["rollout-0"]
    broken = ray.put(harmed(actors.learner.publish(whole=False)))
    loaded = actors.background.run(actors.rollouts.load(engine, actors.learner.version, broken))
    assert loaded.mismatched_tensors == ["model.embed_tokens.weight"]
    monkeypatch.setattr(actors.weights.transport, "learner", HarmingLearner(actors.learner))

    async def sample_meanwhile() -> tuple[list[SampledCompletion], Synced]:
        sampling = asyncio.ensure_future(sample(engine.handle, [PROMPTS[0]], SAMPLING))
        done, _ = await asyncio.wait([sampling], timeout=2)
        assert not done
        synced = await asyncio.to_thread(sync, actors)
        return await sampling, synced

    completions, synced = asyncio.run(sample_meanwhile())
    versions = {span.version for sampled in completions for span in sampled.completion.versions}
    assert versions == {actors.learner.version}
    assert synced.repaired == ["rollout-0"] and engine.state == "serving"
    assert not deltas(actors)
    assert synced.metrics()["rollout/stall_s"] > 2
    assert disagreement(actors, run) < 2e-3


def test_an_engine_that_replaces_a_dead_one_serves_the_current_version(actors: cluster.Actors, run: RunConfig) -> None:
    nudge(actors)
    sync(actors)
    end_engine(actors, "rollout-0")
    late = actors.add_engine()
    assert late.name == "rollout-1"
    completions = [completion for group in sample_groups(actors) for completion in group.group.completions]
    assert {span.version for completion in completions for span in completion.versions} == {actors.learner.version}
    assert disagreement(actors, run) < 2e-3


class AlwaysHarmingLearner(HarmingLearner):
    """Harms a rank's first checksum, of whole versions too."""

    def publish(self, *, whole: bool) -> Snapshot:
        snapshot = self.learner.publish(whole=whole)
        first = snapshot.ranks[0]
        checksums = [[first.checksums[0][0] ^ 1, *first.checksums[0][1:]], *first.checksums[1:]]
        return replace(snapshot, ranks=[replace(first, checksums=checksums), *snapshot.ranks[1:]])


def test_an_engine_whose_weights_arrive_broken_twice_is_lost(
    actors: cluster.Actors, monkeypatch: pytest.MonkeyPatch
) -> None:
    nudge(actors)
    losses: dict[str, str] = {}
    monkeypatch.setattr(actors.rollouts, "on_loss", losses.__setitem__)
    actors.weights.transport.learner = AlwaysHarmingLearner(actors.learner)
    sync(actors)
    assert "arrived broken, twice: rollout-1 (model.embed_tokens.weight)" in losses["rollout-1"]
    assert actors.rollouts.replicas["rollout-1"].state == "dead"
