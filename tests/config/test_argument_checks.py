"""Arguments that pass through to vLLM and DeepSpeed: names of the installed versions, and names that rlframe owns."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from rlframe.config.compose import load
from rlframe.errors import ConfigError
from rlframe.learner import deepspeed_keys, zero3
from rlframe.rollout import arguments

Composed = Callable[..., DictConfig]


@pytest.mark.parametrize(
    "override, message",
    [
        (
            "rollout.engine_args={tensor_parallel_size: 2}",
            "rollout.engine_args.tensor_parallel_size: use rollout.tensor_parallel",
        ),
        ("rollout.engine_args={dtype: half}", "rollout.engine_args.dtype: use rollout.dtype"),
        (
            "rollout.engine_args={kv_cache_dtyp: fp8}",
            "rollout.engine_args.kv_cache_dtyp: the installed vLLM has no such argument; did you mean kv_cache_dtype",
        ),
        (
            "learner.deepspeed={gradient_clipping: 2.0}",
            "learner.deepspeed.gradient_clipping: use learner.max_grad_norm",
        ),
        (
            "+learner.deepspeed.zero_optimization.stage=2",
            "learner.deepspeed.zero_optimization.stage: the learner is ZeRO-3, whose shards travel to the engines",
        ),
        ("learner.deepspeed={train_batch_size: 64}", "learner.deepspeed.train_batch_size: rlframe cuts the batch"),
        ("learner.deepspeed={fp16: {enabled: true}}", "learner.deepspeed.fp16: use learner.dtype"),
        (
            "learner.deepspeed={wall_clock_breakdwn: true}",
            "learner.deepspeed.wall_clock_breakdwn: DeepSpeed has no such key; did you mean wall_clock_breakdown",
        ),
        (
            "learner.deepspeed={zero_optimization: {overlap_com: true}}",
            "learner.deepspeed.zero_optimization.overlap_com: DeepSpeed has no such key; did you mean overlap_comm",
        ),
        (
            "learner.deepspeed={flops_profiler: {enabled: true, modul_depth: 1}}",
            "learner.deepspeed.flops_profiler.modul_depth: DeepSpeed has no such key; did you mean module_depth",
        ),
        (
            "learner.deepspeed={zero_optimization: {sub_group_size: -1}}",
            "learner.deepspeed.zero_optimization.sub_group_size: Input should be greater than or equal to 0, not -1",
        ),
    ],
)
def test_an_argument_that_cannot_pass_is_refused_by_name(composed: Composed, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        load(composed(override))


def test_known_arguments_pass_and_nested_keys_keep_their_neighbours(composed: Composed) -> None:
    run = load(
        composed(
            "rollout={gpus: 1, engine_args: {kv_cache_dtype: fp8, quantization: fp8}}",
            "+rollout.engine_args.max_num_batched_tokens=4096",
            "learner.deepspeed={zero_optimization: {overlap_comm: true}, comms_logger: {enabled: true, verbose: true}}",
        )
    )
    assert run.rollout.engine_args == {
        "kv_cache_dtype": "fp8",
        "quantization": "fp8",
        "max_num_batched_tokens": 4096,
    }
    zero = zero3.settings(run.learner)["zero_optimization"]
    assert (zero["overlap_comm"], zero["stage"], zero["sub_group_size"]) == (True, 3, zero3.STEP_BUCKET)


def test_without_own_arguments_the_mappings_are_empty(composed: Composed) -> None:
    run = load(composed())
    assert (run.rollout.engine_args, run.learner.deepspeed) == ({}, {})


def test_names_that_rlframe_owns_are_names_of_the_installed_versions() -> None:
    from deepspeed.runtime.config import DeepSpeedConfig
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    assert arguments.OWNED.keys() <= (arguments.known_names() or set())
    top = deepspeed_keys.ReadKeys({"train_batch_size": 1, "zero_optimization": {}})
    DeepSpeedConfig(top)
    zero = {name for key, field in DeepSpeedZeroConfig.model_fields.items() for name in (key, field.alias)}
    sections = {name.split(".")[0] for name in deepspeed_keys.OWNED}
    elsewhere = {"activation_checkpointing", "autotuning", "optimizer", "scheduler", "sequence_parallel_size"}
    assert sections - top.read == elsewhere  # read by other means than `get`, or once ranks have met
    assert {name.split(".")[1] for name in deepspeed_keys.OWNED if "." in name} <= zero | top["zero_optimization"].read
