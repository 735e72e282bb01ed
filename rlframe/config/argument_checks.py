"""Rules on arguments that pass through to vLLM and DeepSpeed: `rollout.engine_args` and `learner.deepspeed`."""

from __future__ import annotations

from collections.abc import Callable

from rlframe.config.keys import RunKeys, SharedKeys
from rlframe.errors import did_you_mean
from rlframe.learner import deepspeed_keys, zero3
from rlframe.rollout import arguments


def engine_arguments_are_free(run: RunKeys) -> str | None:
    for name in run.rollout.engine_args:
        if reason := arguments.OWNED.get(name):
            return f"rollout.engine_args.{name}: {reason}"


def engine_arguments_exist(run: RunKeys) -> str | None:
    if not run.rollout.engine_args or (known := arguments.known_names()) is None:
        return None
    for name in run.rollout.engine_args:
        if name not in known:
            return f"rollout.engine_args.{name}: the installed vLLM has no such argument{did_you_mean(name, known)}"


def quantisation_is_of_whole_weights(run: RunKeys) -> str | None:
    method = run.rollout.engine_args.get("quantization")
    if method and method not in arguments.QUANTISATIONS:
        return (
            f"rollout.engine_args.quantization: {method} loads a checkpoint that is already quantised, and the learner "
            f"sends its own weights at each step; use one of {', '.join(arguments.QUANTISATIONS)}"
        )
    if method and not run.rollout.gpus and method != arguments.CPU_QUANTISATION:
        return (
            f"rollout.engine_args.quantization: vLLM's CPU build does not quantise weights to {method} as they load, "
            f"and rollout.gpus=0; use {arguments.CPU_QUANTISATION}"
        )


def deepspeed_keys_are_free(run: SharedKeys) -> str | None:
    for path in deepspeed_keys.paths(run.learner.deepspeed):
        if reason := deepspeed_keys.OWNED.get(path):
            return f"learner.deepspeed.{path}: {reason}"


def deepspeed_keys_exist(run: SharedKeys) -> str | None:
    user_keys = run.learner.deepspeed
    if not user_keys or deepspeed_keys_are_free(run):
        return None
    if problem := deepspeed_keys.problem(zero3.settings(run.learner), user_keys):
        return f"learner.deepspeed.{problem}"


ENGINE_ARGUMENT_CHECKS: list[Callable[[RunKeys], str | None]] = [
    engine_arguments_are_free,
    engine_arguments_exist,
    quantisation_is_of_whole_weights,
]
DEEPSPEED_CHECKS: list[Callable[[SharedKeys], str | None]] = [deepspeed_keys_are_free, deepspeed_keys_exist]
ARGUMENT_CHECKS = [*ENGINE_ARGUMENT_CHECKS, *DEEPSPEED_CHECKS]
