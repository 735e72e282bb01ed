"""Quantised models: FP8 with scales of blocks trains, other methods are refused, and evaluations leave it to vLLM."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from rlframe.config.compose import load
from rlframe.config.run import EvaluationRun
from rlframe.errors import ConfigError

Composed = Callable[..., DictConfig]


def quantised(composed: Composed, folder: Path, **settings: Any) -> DictConfig:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    return composed(f"model.path={folder}")


def test_fp8_with_scales_of_blocks_trains(composed: Composed, model_folder: Path) -> None:
    load(quantised(composed, model_folder, quant_method="fp8", weight_block_size=[128, 128]))


def test_an_evaluation_in_fp8_needs_a_device_that_multiplies_fp8(composed: Composed, model_folder: Path) -> None:
    run = quantised(composed, model_folder, quant_method="fp8", weight_block_size=[128, 128])
    run.rollout.dtype = "float32"
    with pytest.raises(ConfigError, match=r"model\.path: the weights are in FP8, and vLLM multiplies these on GPUs"):
        load(run, EvaluationRun)
    run.rollout.gpus = 1
    load(run, EvaluationRun)


@pytest.mark.parametrize("settings", [{"quant_method": "mxfp4"}, {"quant_method": "fp8", "weight_block_size": None}])
def test_other_quantised_weights_do_not_train(composed: Composed, model_folder: Path, settings: dict[str, Any]) -> None:
    run = quantised(composed, model_folder, **settings)
    with pytest.raises(ConfigError) as refused:
        load(run)
    assert str(refused.value) == (
        f"model.path: the weights are quantised ({settings['quant_method']}), and the learner trains bfloat16 or "
        "float32; of quantised weights it reads FP8 with weight_block_size only; save them dequantised with "
        "transformers, and give that folder"
    )
    load(run, EvaluationRun)
