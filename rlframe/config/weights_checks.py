"""Combinations of settings by which new weights cannot reach the engines."""

from __future__ import annotations

from collections.abc import Callable

from rlframe.config.keys import RunKeys
from rlframe.model import base_model as model
from rlframe.weights.config import ADAPTER_RANKS

FOLDED = "kv_b_proj.weight"


def weights_backend_has_gpus(run: RunKeys) -> str | None:
    if run.weights.backend != "object_store" and not (run.rollout.gpus and run.learner.gpus):
        return (
            f"weights.backend: {run.weights.backend} moves weights between GPUs, but rollout.gpus="
            f"{run.rollout.gpus} and learner.gpus={run.learner.gpus}; use object_store"
        )


def engines_that_come_and_go_have_an_object_store(run: RunKeys) -> str | None:
    if run.weights.backend != "object_store" and not run.rollout.engines.fixed:
        return (
            f"rollout.engines: {run.rollout.engines} lets engines join at any time, and weights.backend="
            f"{run.weights.backend} sends weights once in a step, to engines that wait for each other; use "
            f"weights.backend=object_store, or rollout.engines={run.rollout.engines.max}"
        )


def kept_cache_is_of_stale_runs(run: RunKeys) -> str | None:
    if run.rollout.cache == "keep" and not run.max_staleness:
        return (
            "rollout.cache: keep lets completions go on with keys and values of older weights, and max_staleness=0 "
            "promises tokens of one policy alone; use recompute, or max_staleness=1"
        )


def adapters_alone_exist(run: RunKeys) -> str | None:
    if run.weights.adapters == "alone" and run.learner.lora is None:
        return "weights.adapters: alone sends adapters, and learner.lora=null trains all weights; use merged"


def adapters_alone_travel_by_object_store(run: RunKeys) -> str | None:
    if _alone(run) and run.weights.backend != "object_store":
        return (
            f"weights.adapters: alone, but weights.backend={run.weights.backend} sends whole tensors; adapters are "
            "few bytes, so use object_store, or merged"
        )


def adapters_alone_have_a_rank_of_vllm(run: RunKeys) -> str | None:
    if run.learner.lora and _alone(run) and run.learner.lora.rank > ADAPTER_RANKS[-1]:
        return (
            f"weights.adapters: alone, but vLLM takes adapters up to rank {ADAPTER_RANKS[-1]}, and learner.lora.rank="
            f"{run.learner.lora.rank}; use merged"
        )


def adapters_alone_are_read_on_one_node(run: RunKeys) -> str | None:
    if _alone(run) and run.rollout.executor == "ray":
        return (
            "weights.adapters: alone hands adapters to vLLM's workers as files in the memory of the engine's node, and "
            "rollout.executor=ray may start workers on other nodes; use executor=auto, or merged"
        )


def adapters_alone_without_latent_attention(run: RunKeys) -> str | None:
    if _alone(run) and model.has_tensor(run.model.path, FOLDED):
        return (
            f"weights.adapters: alone, but vLLM folds projections of latent attention ({FOLDED} at model.path) into "
            "others, past their adapters; use merged"
        )


def adapters_alone_stand_beside_the_learner_s_weights(run: RunKeys) -> str | None:
    if _alone(run) and (method := model.quantisation_method(run.model.path)):
        return (
            f"weights.adapters: alone, but the weights at model.path are quantised ({method}): the learner dequantises "
            "them, so engines cannot start with the learner's; use merged, or a dequantised copy"
        )


def adapters_alone_beside_weights_that_stay(run: RunKeys) -> str | None:
    if _alone(run) and run.placement == "colocated":
        return (
            "weights.adapters: alone never sends the base weights, which engines of placement=colocated discard in the "
            "learner's turn; use merged"
        )


WEIGHTS_CHECKS: list[Callable[[RunKeys], str | None]] = [
    weights_backend_has_gpus,
    engines_that_come_and_go_have_an_object_store,
    kept_cache_is_of_stale_runs,
    adapters_alone_exist,
    adapters_alone_travel_by_object_store,
    adapters_alone_have_a_rank_of_vllm,
    adapters_alone_are_read_on_one_node,
    adapters_alone_without_latent_attention,
    adapters_alone_stand_beside_the_learner_s_weights,
    adapters_alone_beside_weights_that_stay,
]


def _alone(run: RunKeys) -> bool:
    return run.weights.adapters == "alone" and run.learner.lora is not None
