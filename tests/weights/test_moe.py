"""Mixtures of experts from end to end: a ZeRO-3 learner of 2 ranks, vLLM, and the export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ray

from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from rlframe.learner.rank import LearnerRank
from tests.conftest import compose, tiny_overrides
from tests.tiny.learner import exported, save
from tests.weights.test_sync import disagreement, step

TENSORS = {"qwen3_moe": 69, "deepseek_v3": 53}


@pytest.fixture(scope="module", params=[pytest.param("qwen3_moe", marks=pytest.mark.long), "deepseek_v3"])
def run(request: pytest.FixtureRequest) -> RunConfig:
    model = request.getfixturevalue(f"{request.param}_model")
    return compose([*tiny_overrides(model), "learner.lr=0.01"])


def on_every_rank(actors: cluster.Actors, function) -> list:
    return ray.get([rank.__ray_call__.remote(function) for rank in actors.learner.ranks])


def test_engine_and_learner_agree_before_and_after_updates(actors: cluster.Actors, run: RunConfig) -> None:
    assert disagreement(actors, run) < 2e-3
    for _ in range(3):
        step(actors, run)
    assert disagreement(actors, run) > 0.3
    actors.weights.sync(actors.learner.version)
    names = actors.weights.current.names
    assert sorted(names) == sorted(exported(Path(run.model.path)))
    assert len(names) == TENSORS[json.loads((Path(run.model.path) / "config.json").read_text())["model_type"]]
    assert disagreement(actors, run) < 2e-3


def test_an_update_of_experts_alone_changes_the_engine_s_experts(actors: cluster.Actors, run: RunConfig) -> None:
    def shrink(rank: LearnerRank) -> None:
        from deepspeed.runtime.zero import GatheredParameters

        for name, parameter in rank.engine.module.named_parameters():
            if name.endswith("experts.down_proj"):
                with GatheredParameters([parameter], modifier_rank=0):
                    parameter.data[::2] *= -1

    on_every_rank(actors, shrink)
    assert disagreement(actors, run) > 0.3
    actors.weights.sync(actors.learner.version)
    assert disagreement(actors, run) < 2e-3


def test_a_bias_that_only_selects_experts_arrives(actors: cluster.Actors, run: RunConfig) -> None:
    def turn(rank: LearnerRank) -> int:
        biases = [tensor for name, tensor in rank.engine.module.named_buffers() if name.endswith("correction_bias")]
        for bias in biases:
            bias.copy_(bias.flip(0) * 4)
        return len(biases)

    if on_every_rank(actors, turn) == [0, 0]:
        pytest.skip("this router has none")
    assert disagreement(actors, run) > 0.3
    actors.weights.sync(actors.learner.version)
    assert disagreement(actors, run) < 2e-3


def test_the_export_has_the_current_weights_and_opens_in_transformers(
    actors: cluster.Actors, run: RunConfig, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    save(actors.learner.ranks, tmp_path / "state", tmp_path / "export")
    current, initial = exported(tmp_path / "export"), exported(Path(run.model.path))
    assert {name: (t.shape, t.dtype) for name, t in current.items()} == {
        name: (t.shape, t.dtype) for name, t in initial.items()
    }
    configs = [
        json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "export", Path(run.model.path))
    ]
    assert configs[0] == configs[1]
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "export").state_dict()
    fused = {name: tensor for name, tensor in opened.items() if name.endswith("experts.down_proj")}
    assert fused
    for name, tensor in fused.items():
        layer = name.removesuffix("down_proj")
        assert all((current[f"{layer}{e}.down_proj.weight"] == tensor[e].numpy()).all() for e in range(8))
        assert (current[f"{layer}3.down_proj.weight"] != initial[f"{layer}3.down_proj.weight"]).any()
