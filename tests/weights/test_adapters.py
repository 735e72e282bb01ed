"""Adapters alone on their way from a real ZeRO-3 learner to a real vLLM engine, which keeps the base weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from rlframe.learner.group import LearnerGroup
from rlframe.weights.snapshot import Snapshot
from tests.conftest import compose, tiny_overrides
from tests.tiny.learner import save
from tests.weights.test_sync import disagreement, sample_groups, sample_through_an_update, step, sync

RANK, LAYERS = 3, 2
SHAPES = {"q_proj": (64, 64), "down_proj": (128, 64)}  # width in, width out


@pytest.fixture(scope="module")
def run(tiny_model: Path) -> RunConfig:
    lora = f"learner.lora={{rank: {RANK}, alpha: 6, targets: [{', '.join(SHAPES)}]}}"
    settings = [lora, "weights.adapters=alone", "rollout.max_tokens=380", "learner.lr=0.05"]
    return compose([*tiny_overrides(tiny_model), *settings])


def versions(actors: cluster.Actors) -> set[int]:
    completions = [completion for group in sample_groups(actors) for completion in group.group.completions]
    return {span.version for completion in completions for span in completion.versions}


def test_engine_and_learner_agree_after_steps_by_the_adapters_bytes(actors: cluster.Actors, run: RunConfig) -> None:
    assert disagreement(actors, run) < 2e-3
    for _ in range(3):
        step(actors, run)
    assert disagreement(actors, run) > 0.1
    synced = sync(actors)
    assert disagreement(actors, run) < 2e-3
    # A [rank, in] and B [out, rank] in float32, of every target in every layer: 4 * 2 * (3 * 128 + 3 * 192).
    assert synced.bytes == 4 * LAYERS * sum(RANK * (wide + out) for wide, out in SHAPES.values()) == 7_680
    assert versions(actors) == {3}
    names = actors.weights.current.names
    assert len(names) == 2 * LAYERS * len(SHAPES) and all(".lora_" in name for name in names)


def test_a_frozen_completion_goes_on_with_the_new_adapter(actors: cluster.Actors, run: RunConfig) -> None:
    step(actors, run)
    old = actors.rollouts.version
    completions = sample_through_an_update(actors)
    crossed = [[span.version for span in c.versions] for c in completions if len(c.versions) == 2]
    assert crossed and all(found == [old, old + 1] for found in crossed)
    assert disagreement(actors, run) < 2e-3


class Harming:
    """The learner, but for a changed checksum in a version's first publication, or in all."""

    def __init__(self, learner: LearnerGroup, *, always: bool) -> None:
        self.learner = learner
        self.always = always

    def publish(self, *, whole: bool) -> Snapshot:
        snapshot = self.learner.publish(whole=whole)
        first = snapshot.ranks[0]
        checksums = [[first.checksums[0][0] ^ 1, *first.checksums[0][1:]], *first.checksums[1:]]
        harmed = replace(snapshot, ranks=[replace(first, checksums=checksums), *snapshot.ranks[1:]])
        return harmed if self.always or not whole else snapshot


def test_a_broken_adapter_is_sent_again(
    actors: cluster.Actors, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    step(actors, run)
    monkeypatch.setattr(actors.weights.transport, "learner", Harming(actors.learner, always=False))
    assert sync(actors).repaired == ["rollout-0"]
    assert disagreement(actors, run) < 2e-3


def test_a_restored_learner_brings_its_adapter_to_the_engine(
    actors: cluster.Actors, run: RunConfig, tmp_path: Path
) -> None:
    save(actors.learner.ranks, tmp_path)
    saved_version = actors.learner.version
    step(actors, run)
    sync(actors)
    actors.learner.load(tmp_path, saved_version)
    assert disagreement(actors, run) > 1e-2
    sync(actors)
    assert disagreement(actors, run) < 2e-3


def test_the_engine_leaves_no_file_behind(actors: cluster.Actors) -> None:
    assert list(Path("/dev/shm").glob("rlframe-adapter-*")) == []


def test_an_engine_whose_adapter_is_broken_twice_is_lost(
    actors: cluster.Actors, run: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    step(actors, run)
    losses: dict[str, str] = {}
    monkeypatch.setattr(actors.rollouts, "on_loss", losses.__setitem__)
    actors.weights.transport.learner = Harming(actors.learner, always=True)
    sync(actors)
    assert "broken, twice: rollout-0 (model.layers.0.self_attn.q_proj.lora_A" in losses["rollout-0"]
