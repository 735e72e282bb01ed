"""Combinations of settings that no evaluation can run with, in the manner of `checks.py`."""

from __future__ import annotations

from collections.abc import Callable

from rlframe.config.checks import beyond_context
from rlframe.config.evaluate import SamplingKeys, SetConfig
from rlframe.config.keys import RunKeys
from rlframe.model import base_model as model
from rlframe.record.evaluations import MAIN_SET


def deciding_rewards_exist(run: RunKeys) -> str | None:
    for path, settings in _sets(run):
        if settings.reward is not None and settings.reward not in run.reward.terms:
            return f"{path}.reward: {settings.reward!r} is none of the rewards {', '.join(run.reward.terms)}"


def heldout_is_the_name_of_one_set(run: RunKeys) -> str | None:
    if MAIN_SET in run.evaluate.sets:
        return f"evaluate.sets.{MAIN_SET}: is the name of the set of prompts.heldout; choose another name"


def samples_are_enough_for_every_k(run: RunKeys) -> str | None:
    for path, settings in _sets(run):
        if settings.tries[-1] > settings.samples:
            return (
                f"{path}.k: pass@{settings.tries[-1]} needs {settings.tries[-1]} completions of a prompt, but "
                f"{path}.samples={settings.samples}; raise samples, or leave this k out"
            )


def greedy_evaluation_samples_once(run: RunKeys) -> str | None:
    return next((problem for path, settings in _sets(run) if (problem := greedy_problem(path, settings))), None)


def greedy_problem(path: str, settings: SamplingKeys) -> str | None:
    """The problem of greedy completions that would all be the same. `path`: key of the settings."""
    if settings.temperature == 0 and settings.samples > 1:
        return (
            f"{path}.samples: at temperature 0 all {settings.samples} completions of a prompt are the same; "
            "use 1, or a temperature above 0"
        )


def evaluation_fits_model(run: RunKeys) -> str | None:
    for path, settings in _sets(run):
        tokens = settings.max_tokens
        if tokens is not None and (problem := beyond_context(run, f"{path}.max_tokens", tokens, str(tokens))):
            return problem


def fp8_model_has_kernels(run: RunKeys) -> str | None:
    """Of an evaluation without training: no learner dequantises the model, so vLLM computes in FP8."""
    if run.rollout.gpus or not model.is_dequantised_in_loading(run.model.path):
        return None
    import torch

    if not torch.cpu.get_capabilities().get("amx_tile") or run.rollout.dtype == "float32":
        return (
            "model.path: the weights are in FP8, and vLLM multiplies these on GPUs, or on processors with AMX under "
            "rollout.dtype=bfloat16; set rollout.gpus, or evaluate a dequantised copy, such as the folder huggingface "
            "of a checkpoint"
        )


EVALUATION_CHECKS: list[Callable[[RunKeys], str | None]] = [
    deciding_rewards_exist,
    heldout_is_the_name_of_one_set,
    samples_are_enough_for_every_k,
    greedy_evaluation_samples_once,
    evaluation_fits_model,
]


def _sets(run: RunKeys) -> list[tuple[str, SetConfig]]:
    """The key of each held-out set, and its settings."""
    return [
        ("evaluate" if name == MAIN_SET else f"evaluate.sets.{name}", settings)
        for name, settings in run.held_out_sets.items()
    ]
