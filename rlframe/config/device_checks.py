"""Combinations of settings that the run's machines cannot meet: GPUs, placement."""

from __future__ import annotations

from collections.abc import Callable

from rlframe.config.keys import RunKeys


def routed_experts_have_gpus(run: RunKeys) -> str | None:
    if run.rollout.routed_experts and not run.rollout.gpus:
        return "rollout.routed_experts: vLLM tells them on GPUs only, and rollout.gpus=0; use false"


def engine_gpus_are_its_workers(run: RunKeys) -> str | None:
    rollout = run.rollout
    if rollout.gpus and rollout.gpus != rollout.workers:
        return (
            f"rollout.gpus: an engine of tensor_parallel={rollout.tensor_workers} x pipeline_parallel="
            f"{rollout.pipeline_parallel} x data_parallel={rollout.data_parallel} = {rollout.workers} workers uses as "
            f"many GPUs, not {rollout.gpus}; set rollout.gpus={rollout.workers}, or change a factor"
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


DEVICE_CHECKS: list[Callable[[RunKeys], str | None]] = [
    routed_experts_have_gpus,
    engine_gpus_are_its_workers,
    experts_are_divided_on_gpus,
    ray_executor_has_gpus,
]
