"""What DeepSpeed is told: ZeRO-3 with gradients summed, not averaged, and float32 master weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlframe.learner.config import LearnerConfig

# Elements of which gradients are summed at a time, and that the optimizer steps at a time. Either part is copied in
# float32, some of it more than once; with DeepSpeed's defaults it is all of a small model, 1.6 GB more of 135M. A
# parameter larger than what is summed at a time takes a detour through three more copies.
SUMMED = 1 << 25
STEPPED = 1 << 25


def settings(config: LearnerConfig) -> dict[str, Any]:
    """DeepSpeed's JSON configuration (https://www.deepspeed.ai/docs/config-json/)."""
    zero: dict[str, Any] = {
        "stage": 3,
        # Every parameter is partitioned, also small ones, so all of them live by one rule: checkpoints and
        # weight sync read partitions.
        "stage3_param_persistence_threshold": 0,
        # Let go of a layer after its use. The default looks through all later layers for one that needs it again,
        # at every layer: on a small model that costs more than gathering.
        "stage3_max_reuse_distance": 0,
        "reduce_bucket_size": SUMMED,
        # One rank has nothing to scatter, and summing in place saves it three copies of every gradient. DeepSpeed's
        # Muon needs whole sums.
        "reduce_scatter": config.ranks > 1 and config.optimizer != "muon",
        "sub_group_size": STEPPED,
    }
    if config.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if config.offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return _expert_parallel(config) | {
        # Micro-batches hold whole sequences, a different number of them at every step, so the caller owns the
        # accumulation boundary: `step()`. These two numbers only satisfy DeepSpeed's own arithmetic.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "bf16": {"enabled": config.dtype == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        # DeepSpeed would clip Muon's updates, whose norm is what it is whatever the gradient's.
        "gradient_clipping": config.max_grad_norm if config.optimizer == "adamw" else 0.0,
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW is as fast on a CPU, and nothing is compiled
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
    }


def _expert_parallel(config: LearnerConfig) -> dict[str, Any]:
    """DeepSpeed's AutoEP, which puts blocks of its own in place of the model's: each rank has a part of the experts.

    Tokens go to their experts' ranks and back. ZeRO-3 slices a rank's experts among the ranks that have the same.
    """
    if config.expert_parallel is None:
        return {}
    layers = r"model\.model\.layers\.\d+\.mlp"  # as its own, after what `Policy` puts before names
    return {
        "expert_parallel": {"enabled": True, "autoep_size": config.expert_parallel, "moe_layer_pattern": layers},
    }
