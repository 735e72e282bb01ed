"""A model that is published in FP8, from end to end: the engines sample with the learner's dequantised weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlframe.cluster import start as cluster
from rlframe.model.checkpoint_files import CheckpointFiles
from tests.conftest import compose, tiny_overrides
from tests.tiny.learner import exported, save
from tests.tiny.models import make_fp8
from tests.weights.test_sync import disagreement


@pytest.mark.long
def test_engines_of_an_fp8_model_sample_with_the_learners_weights(deepseek_v3_model: Path, tmp_path: Path) -> None:
    model = make_fp8(deepseek_v3_model, tmp_path / "model", (128, 128))
    run = compose(tiny_overrides(model))
    with cluster.start(run, model) as actors:
        assert actors.weights and actors.learner and actors.rollouts
        assert actors.weights.current and actors.weights.current.version == 0
        assert disagreement(actors, run) < 2e-3
        save(actors.learner.ranks, tmp_path / "learner", tmp_path / "huggingface")
    files, weights = CheckpointFiles(model), exported(tmp_path / "huggingface")
    assert weights.keys() == set(files.names())
    for name, tensor in weights.items():
        assert (tensor == files.read(name, torch.float32).numpy()).all(), name
    assert "quantization_config" not in (tmp_path / "huggingface" / "config.json").read_text()
