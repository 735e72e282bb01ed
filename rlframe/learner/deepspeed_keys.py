"""Keys of `learner.deepspeed`: keys that rlframe sets itself, and keys that the installed DeepSpeed lacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from rlframe.errors import did_you_mean

_BATCHES = "rlframe cuts the batch; use prompts_per_step, rollout.group_size, learner.minibatches, micro_batch_tokens"
_OPTIMIZER = "rlframe builds the optimizer; use learner.optimizer, lr, betas, adam_epsilon, weight_decay"
_SUMS = "rlframe sums gradients, and weighs the loss instead; remove it"
_SHARDS = "rlframe's weights and checkpoints need one shard of each parameter on each rank; remove it"
_NOT_READ = "rlframe does not use this part of DeepSpeed; remove it"

# Path of a key -> the reason of its refusal, and the key to use.
OWNED = {
    "train_batch_size": _BATCHES,
    "train_micro_batch_size_per_gpu": _BATCHES,
    "gradient_accumulation_steps": _BATCHES,
    "managed_gradient_accumulation": _BATCHES,
    "dataloader_drop_last": _BATCHES,
    "gradient_clipping": "use learner.max_grad_norm",
    "optimizer": _OPTIMIZER,
    "zero_allow_untested_optimizer": _OPTIMIZER,
    "zero_force_ds_cpu_optimizer": _OPTIMIZER,
    "zero_optimization.zenflow": _OPTIMIZER,
    "zero_optimization.offload_optimizer.super_offload": _OPTIMIZER,
    "scheduler": "use learner.schedule, warmup_steps, min_lr",
    "bf16": "use learner.dtype",
    "bfloat16": "use learner.dtype",
    "fp16": "use learner.dtype",
    "amp": "use learner.dtype",
    "torch_autocast": "use learner.dtype",
    "data_types": "gradients and master weights are float32; use learner.dtype for the parameters",
    "prescale_gradients": _SUMS,
    "gradient_predivide_factor": _SUMS,
    "gradient_allreduce_op": _SUMS,
    "sparse_gradients": _SUMS,
    "activation_checkpointing": "use learner.gradient_checkpointing",
    "expert_parallel": "use learner.expert_parallel",
    "use_data_before_expert_parallelism": "use learner.expert_parallel",
    "tensor_parallel": "the learner divides parameters by ZeRO-3; use learner.ranks",
    "pipeline": "the learner divides parameters by ZeRO-3; use learner.ranks",
    "sequence_parallel_size": "use learner.sequence_parallel",
    "elasticity": "use learner.ranks",
    "zero_optimization.stage": "the learner is ZeRO-3, whose shards travel to the engines; remove it",
    "zero_optimization.offload_optimizer.device": "use learner.offload_optimizer",
    "zero_optimization.offload_param.device": "use learner.offload_parameters",
    "zero_optimization.cpu_offload": "use learner.offload_optimizer",
    "zero_optimization.cpu_offload_param": "use learner.offload_parameters",
    "zero_optimization.reduce_scatter": "rlframe chooses it by learner.ranks and learner.optimizer; remove it",
    "zero_optimization.stage3_param_persistence_threshold": _SHARDS,
    "zero_optimization.param_persistence_threshold": _SHARDS,
    "zero_optimization.mics_shard_size": _SHARDS,
    "zero_optimization.zero_hpz_partition_size": _SHARDS,
    "zero_optimization.zero_quantized_weights": _SHARDS,
    "zero_optimization.zero_quantized_nontrainable_weights": _SHARDS,
    "checkpoint": "rlframe writes checkpoints; use checkpoint.*",
    "nebula": "rlframe writes checkpoints; use checkpoint.*",
    "datastates_ckpt": "rlframe writes checkpoints; use checkpoint.*",
    "hybrid_engine": "vLLM's engines generate; use rollout.*",
    "autotuning": _NOT_READ,
    "compile": _NOT_READ,
    "compression_training": _NOT_READ,
    "curriculum_learning": _NOT_READ,
    "data_efficiency": _NOT_READ,
    "eigenvalue": _NOT_READ,
    "graph_harvesting": _NOT_READ,
    "progressive_layer_drop": _NOT_READ,
    "quantize_training": _NOT_READ,
    "sparse_attention": _NOT_READ,
    "vocabulary_size": _NOT_READ,
    "weight_quantization": _NOT_READ,
}


def paths(settings: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted path of every key of nested settings, a key before the keys inside."""
    for key, value in settings.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{key}.")


class ReadKeys(dict[str, Any]):
    """Nested settings that remember which keys a reader asked for, present or absent."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(
            {key: ReadKeys(value) if isinstance(value, dict) else value for key, value in settings.items()}
        )
        self.read: set[str] = set()  # a copy of the settings adds to the same set

    def __contains__(self, key: object) -> bool:
        self.read.add(str(key))
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.read.add(key)
        return super().get(key, default)

    def __iter__(self) -> Iterator[str]:  # so that `**settings` calls __getitem__
        return super().__iter__()


def problem(settings: dict[str, Any], user_keys: dict[str, Any]) -> str | None:
    """Path and reason of the first key of `user_keys` that the installed DeepSpeed cannot use; None: it uses all.

    `settings`: rlframe's and the user's keys together. DeepSpeed ignores most unknown keys silently, so a key that
    DeepSpeed never reads counts as unknown. Imports DeepSpeed.
    """
    from deepspeed.runtime.config import DeepSpeedConfig
    from deepspeed.runtime.config_utils import DeepSpeedConfigModel

    watched = ReadKeys(settings)
    try:
        DeepSpeedConfig(watched)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        inside = ".".join(map(str, first["loc"]))
        key_path = next((path for path in paths(user_keys) if path.endswith(f".{inside}")), inside)
        if first["type"] != "extra_forbidden":
            return f"{key_path}: {first['msg']}, not {first['input']!r}"
        kinds = {kind.__name__: kind for kind in DeepSpeedConfigModel.__subclasses__()}
        fields = kinds[error.title].model_fields if error.title in kinds else {}
        return _unknown(key_path, [field.alias or name for name, field in fields.items()])
    except Exception as error:  # DeepSpeed's checks raise many kinds
        return f"DeepSpeed refuses it: {error}"
    for path in paths(user_keys):
        *sections, key = path.split(".")
        inner: Any = watched
        for section in sections:
            inner = inner[section]
        if key not in inner.read:
            return _unknown(path, sorted(inner.read))
    return None


def _unknown(path: str, known: list[str]) -> str:
    return f"{path}: DeepSpeed has no such key{did_you_mean(path.rpartition('.')[2], known)}"
