"""Runs and shapes for tests of plans: nothing here starts, loads or downloads."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlframe.config.run import RunConfig
from rlframe.plan.counting import model_shapes
from rlframe.plan.shapes import ModelShapes
from tests.conftest import compose

DEEPSEEK_V3 = Path(__file__).parents[2] / "conf" / "shapes" / "deepseek_v3"
# Two layers, hidden size 8, two heads of 4 with one key head, MLP width 16, 32 tokens, head tied.
TINY = {
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
    "tie_word_embeddings": True,
    "max_position_embeddings": 4096,
}
QWEN3_8B = {
    "model_type": "qwen3",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "tie_word_embeddings": False,
    "max_position_embeddings": 40_960,
}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    """`folder(settings)`: a Hugging Face folder with this config.json and nothing else."""

    def make(settings: dict[str, Any]) -> Path:
        path = tmp_path / f"model-{len(list(tmp_path.iterdir()))}"
        path.mkdir()
        (path / "config.json").write_text(json.dumps(settings))
        return path

    return make


@pytest.fixture
def run_of(folder: Callable[[dict[str, Any]], Path]) -> Callable[..., RunConfig]:
    """`run_of(settings, "learner.ranks=2")`: a checked run of the model of a config.json."""

    def make(settings: dict[str, Any], *overrides: str) -> RunConfig:
        dtypes = ("rollout.dtype=bfloat16", "learner.dtype=bfloat16")
        return compose([f"model.path={folder(settings)}", *dtypes, *overrides])

    return make


def shapes_of(settings: dict[str, Any]) -> ModelShapes:
    shapes = model_shapes(settings)
    assert shapes is not None
    return shapes
