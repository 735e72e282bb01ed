"""Combinations of the learner's settings that cannot work, beside those in `checks.py`."""

from __future__ import annotations

from collections.abc import Callable

from rlframe.config.keys import RunKeys, SharedKeys
from rlframe.model import base_model as model
from rlframe.training import PACKED_ATTENTION

EXPERT_PARALLEL_MODELS = ("qwen3_moe",)  # model_type of a config.json


def muon_has_whole_matrices(run: SharedKeys) -> str | None:
    keys = [key for key in ("lora", "offload_optimizer", "offload_parameters") if getattr(run.learner, key)]
    if run.learner.optimizer == "muon" and keys:
        return f"learner.optimizer: muon is for whole matrices on the device, not for learner.{keys[0]}; use adamw"


def sequence_parallel_divides_ranks(run: SharedKeys) -> str | None:
    size, ranks = run.learner.sequence_parallel, run.learner.ranks
    if ranks % size:
        return f"learner.sequence_parallel: {ranks} ranks do not divide into groups of {size}"


def sequence_parallel_has_packed_attention(run: SharedKeys) -> str | None:
    size = run.learner.sequence_parallel
    if size > 1 and run.learner.attention != PACKED_ATTENTION:
        return f"learner.sequence_parallel: {size} works with learner.attention={PACKED_ATTENTION} only"


def sequence_parallel_has_shared_packing(run: SharedKeys) -> str | None:
    if run.learner.sequence_parallel > 1 and run.learner.packing not in ("auto", "shared"):
        return (
            f"learner.packing: {run.learner.packing} is not divided over learner.sequence_parallel="
            f"{run.learner.sequence_parallel} ranks; use auto, or sequence_parallel=1"
        )


def sequence_parallel_without_routed_experts(run: RunKeys) -> str | None:
    size = run.learner.sequence_parallel
    if size > 1 and run.rollout.routed_experts:
        return f"learner.sequence_parallel: {size} replays no rollout.routed_experts; use false, or 1"


def model_has_expert_bias(run: SharedKeys) -> str | None:
    rate = run.learner.moe.bias_update_rate
    if rate and not model.has_tensor(run.model.path, model.BIAS):
        return (
            f"learner.moe.bias_update_rate: {rate} moves a bias that chooses experts "
            f"({model.BIAS}), and the model at model.path has none; use 0"
        )


def lora_targets_no_experts(run: SharedKeys) -> str | None:
    if run.learner.lora is None:
        return None
    targets = {target.rpartition(".")[2] for target in run.learner.lora.targets}
    if refused := targets & model.expert_parts(run.model.path):
        return (
            f"learner.lora.targets: {', '.join(sorted(refused))} name experts or their router, which are one "
            "tensor a layer that no adapter is merged into; name matrices of the attention"
        )


def expert_parallel_knows_model(run: SharedKeys) -> str | None:
    if run.learner.expert_parallel and not _supports_expert_parallel(run):
        return (
            f"learner.expert_parallel: is for {', '.join(EXPERT_PARALLEL_MODELS)}, whose blocks DeepSpeed's own are "
            f"known to equal, and the model at model.path is {model.kind(run.model.path)}; use null"
        )


def expert_parallel_divides_ranks(run: SharedKeys) -> str | None:
    size = _checked_expert_parallel(run)
    if size and run.learner.ranks % size:
        return f"learner.expert_parallel: {size} does not divide learner.ranks={run.learner.ranks}; choose a divisor"


def expert_parallel_divides_experts(run: SharedKeys) -> str | None:
    size = _checked_expert_parallel(run)
    if size and (experts := model.experts(run.model.path)) % size:
        return f"learner.expert_parallel: {size} does not divide the model's {experts} experts; choose a divisor"


def expert_parallel_without_lora(run: SharedKeys) -> str | None:
    if _checked_expert_parallel(run) and run.learner.lora:
        return "learner.expert_parallel: learner.lora freezes the experts that it would share out; use null"


def expert_parallel_without_muon(run: SharedKeys) -> str | None:
    if _checked_expert_parallel(run) and run.learner.optimizer == "muon":
        return "learner.expert_parallel: muon wants whole gradients of the same parameters on all ranks; use adamw"


def expert_parallel_without_sequence_parallel(run: SharedKeys) -> str | None:
    if _checked_expert_parallel(run) and run.learner.sequence_parallel > 1:
        return (
            "learner.expert_parallel: DeepSpeed does not combine it with sequence parallelism; use null, or "
            "learner.sequence_parallel=1"
        )


def expert_parallel_without_routed_experts(run: RunKeys) -> str | None:
    if _checked_expert_parallel(run) and run.rollout.routed_experts:
        return "learner.expert_parallel: DeepSpeed's routers cannot be told routes; use rollout.routed_experts=false"


SHARED_LEARNER_CHECKS: list[Callable[[SharedKeys], str | None]] = [
    muon_has_whole_matrices,
    sequence_parallel_divides_ranks,
    sequence_parallel_has_packed_attention,
    sequence_parallel_has_shared_packing,
    model_has_expert_bias,
    lora_targets_no_experts,
    expert_parallel_knows_model,
    expert_parallel_divides_ranks,
    expert_parallel_divides_experts,
    expert_parallel_without_lora,
    expert_parallel_without_muon,
    expert_parallel_without_sequence_parallel,
]
LEARNER_CHECKS: list[Callable[[RunKeys], str | None]] = [
    *SHARED_LEARNER_CHECKS,
    sequence_parallel_without_routed_experts,
    expert_parallel_without_routed_experts,
]


def _supports_expert_parallel(run: SharedKeys) -> bool:
    return model.kind(run.model.path) in EXPERT_PARALLEL_MODELS


def _checked_expert_parallel(run: SharedKeys) -> int | None:
    """`learner.expert_parallel`; None for an unsupported model, which `expert_parallel_knows_model` reports alone."""
    size = run.learner.expert_parallel
    return size if size and _supports_expert_parallel(run) else None
