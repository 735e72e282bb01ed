"""Computes TRL's advantages and losses on given tensors, in TRL's environment; peer_losses.py runs this file.

`_generate_and_score_completions` and `_compute_loss` are TRL's, unmodified, on a trainer without a model: completions,
rewards, log-probabilities and entropies are the given ones. Other attributes have the values that the trainer's
constructor would derive from its config.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch
from loss_exchange import Tensors, answer
from trl import GRPOTrainer, RLOOTrainer
from trl.experimental.gmpo import GMPOTrainer

TRAINERS = {"grpo": GRPOTrainer, "gmpo": GMPOTrainer, "rloo": RLOOTrainer}
END, TOKEN, PAD = 2, 1, 0


def trainer(settings: dict[str, Any], tensors: Tensors) -> Any:
    """A trainer whose policy before the step is `old`; `compute` sets the current one."""
    kind = settings.get("trainer", "grpo")
    stub: Any = object.__new__(TRAINERS[kind])
    stub.model = SimpleNamespace(training=True, is_gradient_checkpointing=False)
    stub.ref_model = SimpleNamespace()
    stub._get_per_token_logps_and_entropies = lambda model, *_, **__: (
        tensors["ref" if model is stub.ref_model else "old"],
        None,
        None,
    )
    stub.accelerator = SimpleNamespace(
        device="cpu", process_index=0, num_processes=1, sync_gradients=True, gather=lambda value: value,
        reduce=lambda value, **_: value,
    )  # fmt: skip
    stub.args = SimpleNamespace(
        delta=settings.get("delta"),
        use_bias_correction_kl=settings.get("use_bias_correction_kl", False),
        steps_per_generation=1,
        gradient_accumulation_steps=1,
        per_device_train_batch_size=len(tensors["mask"]),
        gradient_checkpointing_kwargs=None,
        report_to=[],
    )
    stub.current_gradient_accumulation_steps = 1
    stub.num_iterations = 2  # so that the log-probabilities of before the step count
    stub.max_completion_length = tensors["mask"].shape[1]
    stub.top_entropy_quantile = 1.0
    stub.off_policy_mask_threshold = settings.get("off_policy_mask_threshold")
    stub.importance_sampling_level = settings.get("importance_sampling_level", "token")
    stub.beta = settings.get("beta", 0.0)
    stub.epsilon_low = settings.get("epsilon_low", 0.2)
    stub.epsilon_high = settings.get("epsilon_high", 0.2)
    stub.loss_type = settings.get("loss_type", "grpo")
    stub.use_vllm = stub.vllm_importance_sampling_correction = "vllm_importance_sampling_mode" in settings
    stub.vllm_importance_sampling_mode = settings.get("vllm_importance_sampling_mode")
    stub.vllm_importance_sampling_clip_min = settings.get("vllm_importance_sampling_clip_min")
    stub.vllm_importance_sampling_clip_max = settings.get("vllm_importance_sampling_clip_max")
    stub.entropy_coef = settings.get("entropy_coef", 0.0)
    stub._entropy_bonus_enabled = stub.entropy_coef != 0.0
    stub.use_adaptive_entropy = stub.aux_loss_enabled = stub.log_multimodal = False
    stub.mask_truncated_completions = settings.get("mask_truncated_completions", False)
    stub.multi_objective_aggregation = settings.get("multi_objective_aggregation", "sum_then_normalize")
    stub.scale_rewards = settings.get("scale_rewards", "group")
    stub.normalize_advantages, stub.reward_clip_range = False, None
    stub.num_generations = len(tensors["mask"]) // len(tensors["prompts"].unique())
    stub.reward_funcs = stub.reward_func_names = [str(index) for index in range(tensors["rewards"].shape[1])]
    stub.reward_weights = tensors["reward_weights"]
    stub.environment_factories = stub.environments = stub.tools = stub.pad_to_multiple_of = None
    stub._tokenizer = SimpleNamespace(pad_token_id=PAD)
    stub.eos_token_ids = [END]
    stub._metrics = {"train": defaultdict(list)}
    stub._logs = {"rewards": defaultdict(list), "extra": defaultdict(list), "advantages": []}
    stub._logs |= {"prompt": [], "completion": []}
    stub._pending_extra_logs, stub._pending_metrics = {}, {}
    stub._calculate_rewards = lambda *_: tensors["rewards"]
    stub._generate = lambda prompts: generated(kind, tensors)
    return stub


def generated(kind: str, tensors: Tensors) -> tuple:
    """The completions in the form in which the trainer's `_generate` returns them."""
    mask = tensors["mask"].bool()
    endings = [TOKEN if cut_off else END for cut_off in tensors["cut_off"]]
    tokens = [[TOKEN] * (int(row.sum()) - 1) + [end] for row, end in zip(mask, endings, strict=True)]
    prompts, texts = [[TOKEN]] * len(tokens), [""] * len(tokens)
    if kind == "rloo":
        return prompts, tokens, texts
    sampling = [row[kept].tolist() for row, kept in zip(tensors["rollout"], mask, strict=True)]
    return prompts, tokens, None, texts, sampling, {}, None, None


def compute(settings: dict[str, Any], tensors: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    stub = trainer(settings, tensors)
    inputs = stub._generate_and_score_completions([{"prompt": ""} for _ in tensors["mask"]])
    stub._get_per_token_logps_and_entropies = lambda *_, **__: (tensors["logprobs"], tensors["entropies"], None)
    advantages = inputs["advantages"][:, None] * inputs["completion_mask"]
    return advantages, stub._compute_loss(None, inputs)


if __name__ == "__main__":
    answer(compute)
