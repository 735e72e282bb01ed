"""Rules on how new weights reach the engines."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from rlframe.config.compose import load
from rlframe.errors import ConfigError

Composed = Callable[..., DictConfig]
LORA = "learner.lora={rank: 8, alpha: 16, targets: [q_proj]}"
ALONE = "weights.adapters=alone"


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["weights.backend=nccl", "rollout.gpus=1"], "weights.backend: nccl moves weights between GPUs"),
        (
            ["rollout.cache=keep", "max_staleness=0"],
            "rollout.cache: keep lets completions go on with keys and values of older weights, and max_staleness=0 "
            "promises tokens of one policy alone; use recompute, or max_staleness=1",
        ),
        (["weights.backend=sharded_rdt"], "weights.backend: sharded_rdt lets vLLM's workers pull slices"),
        ([ALONE], "weights.adapters: alone sends adapters, and learner.lora=null trains all weights; use merged"),
        (
            [ALONE, LORA, "weights.backend=nccl", "rollout.gpus=1", "learner.gpus=1"],
            "weights.adapters: alone, but weights.backend=nccl sends whole tensors",
        ),
        (
            [ALONE, LORA.replace("8", "513")],
            "vLLM takes adapters up to rank 512, and learner.lora.rank=513; use merged",
        ),
        ([ALONE, LORA, "rollout.executor=ray"], "rollout.executor=ray may start workers on other nodes"),
        ([ALONE, LORA, "placement=colocated"], "alone never sends the base weights, which engines of placement="),
    ],
)
def test_a_way_that_no_weight_can_go_is_refused(composed: Composed, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(composed(*overrides))


@pytest.mark.parametrize("rank", [1, 9, 512])
def test_adapters_of_any_rank_up_to_512_may_travel_alone(composed: Composed, rank: int) -> None:
    run = load(composed(ALONE, LORA.replace("8", str(rank))))
    assert run.weights.adapters == "alone"


def test_adapters_of_latent_attention_travel_merged(deepseek_v3_model: Path, composed: Composed) -> None:
    lora = LORA.replace("q_proj", "o_proj")
    with pytest.raises(ConfigError, match=r"vLLM folds projections of latent attention \(kv_b_proj"):
        load(composed(f"model.path={deepseek_v3_model}", ALONE, lora))
