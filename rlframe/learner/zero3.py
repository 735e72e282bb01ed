"""DeepSpeed's settings: ZeRO-3 with summed gradients (no average) and float32 master weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlframe.schema import deep_merge

if TYPE_CHECKING:
    from rlframe.learner.config import LearnerConfig

# Bucket sizes in elements: gradient reduction, optimizer step.
# DeepSpeed copies a bucket in float32, some buckets more than once. Its default sizes exceed a small model and cost a
# model of 135M parameters 1.6 GB. A parameter larger than the reduction bucket takes a detour with three more copies.
REDUCE_BUCKET = 1 << 25
STEP_BUCKET = 1 << 25


def settings(config: LearnerConfig) -> dict[str, Any]:
    """DeepSpeed's JSON configuration (https://www.deepspeed.ai/docs/config-json/) with a user's own keys."""
    zero: dict[str, Any] = {
        "stage": 3,
        # Small parameters are partitioned too: checkpoints and weight sync then read shards only.
        "stage3_param_persistence_threshold": 0,
        # Free a layer after its use. The default searches all later layers for a second use, at every layer; on a
        # small model the search costs more than gathering.
        "stage3_max_reuse_distance": 0,
        "reduce_bucket_size": REDUCE_BUCKET,
        # A single rank has nothing to scatter, and summing in place saves three copies of every gradient.
        # DeepSpeed's Muon needs whole sums.
        "reduce_scatter": config.ranks > 1 and config.optimizer != "muon",
        "sub_group_size": STEP_BUCKET,
    }
    if config.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if config.offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    defaults = _expert_parallel(config) | {
        # Micro-batches hold whole sequences, a different number at every step. `Updater` therefore ends the
        # accumulation itself, and the two numbers only satisfy DeepSpeed's arithmetic.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "bf16": {"enabled": config.dtype == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        # With Muon DeepSpeed would clip the orthogonalized update, whose norm does not depend on the gradient's.
        "gradient_clipping": config.max_grad_norm if config.optimizer == "adamw" else 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW is as fast on a CPU and needs no compiler
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }
    return deep_merge(defaults, config.deepspeed)


def _expert_parallel(config: LearnerConfig) -> dict[str, Any]:
    """DeepSpeed's AutoEP: blocks that replace the model's, with a share of the experts on each rank.

    Tokens travel to their experts' ranks and back. ZeRO-3 shards a rank's experts over the ranks with the same experts.
    """
    if config.expert_parallel is None:
        return {}
    layers = r"model\.model\.layers\.\d+\.mlp"  # the model's own names, behind the prefix of `Policy`
    return {
        "expert_parallel": {"enabled": True, "autoep_size": config.expert_parallel, "moe_layer_pattern": layers},
    }
