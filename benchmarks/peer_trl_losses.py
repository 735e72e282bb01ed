"""Computes TRL's losses on given tensors, in a separate environment; trl_losses.py runs this file.

    python peer_trl_losses.py inputs.npz outputs.npz '{"grpo": {"loss_type": "grpo"}, ...}'

`_compute_loss` is TRL's, unmodified, on a trainer without a model: log-probabilities and entropies come from
inputs.npz, and all other attributes have the values that the trainer's constructor would derive from its config.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from trl import GRPOTrainer
from trl.experimental.gmpo import GMPOTrainer

TENSORS = {name: torch.tensor(values) for name, values in np.load(sys.argv[1]).items()}


def trainer(settings: dict[str, Any], logprobs: torch.Tensor, entropies: torch.Tensor) -> Any:
    grpo: Any = object.__new__(GMPOTrainer if settings.get("trainer") == "gmpo" else GRPOTrainer)
    grpo._get_per_token_logps_and_entropies = lambda *_, **__: (logprobs, entropies, None)
    grpo.model = SimpleNamespace(training=True)
    grpo.accelerator = SimpleNamespace(
        num_processes=1, sync_gradients=True, gather=lambda value: value, reduce=lambda value, **_: value
    )
    bias_corrected = settings.get("use_bias_correction_kl", False)
    grpo.args = SimpleNamespace(
        delta=settings.get("delta"), use_bias_correction_kl=bias_corrected, steps_per_generation=1
    )
    grpo.current_gradient_accumulation_steps = 1
    grpo.max_completion_length = logprobs.shape[1]
    grpo.top_entropy_quantile = 1.0
    grpo.off_policy_mask_threshold = settings.get("off_policy_mask_threshold")
    grpo.importance_sampling_level = settings.get("importance_sampling_level", "token")
    grpo.beta = settings.get("beta", 0.0)
    grpo.epsilon_low = settings.get("epsilon_low", 0.2)
    grpo.epsilon_high = settings.get("epsilon_high", 0.2)
    grpo.loss_type = settings["loss_type"]
    grpo.use_vllm = grpo.vllm_importance_sampling_correction = "correction" in settings
    grpo.entropy_coef = settings.get("entropy_coef", 0.0)
    grpo._entropy_bonus_enabled = grpo.entropy_coef != 0.0
    grpo.use_adaptive_entropy = grpo.aux_loss_enabled = False
    grpo._metrics = {"train": defaultdict(list)}
    return grpo


def importance_weights(settings: dict[str, Any]) -> torch.Tensor:
    """The token-level weights that `_generate_and_score_completions` computes."""
    ratio = (TENSORS["old"] - TENSORS["rollout"]).exp()
    if "truncate" in settings:
        return ratio.clamp(max=settings["truncate"])
    low, high = settings["mask"]
    return ratio.masked_fill((ratio < low) | (ratio > high), 0.0)


def main() -> None:
    outputs: dict[str, np.ndarray] = {}
    for name, settings in json.loads(sys.argv[3]).items():
        logprobs, entropies = (TENSORS[key].clone().requires_grad_() for key in ("logprobs", "entropies"))
        mask = TENSORS["mask"]
        empty = torch.zeros(len(mask), 0, dtype=torch.long)
        inputs = {
            "prompt_ids": empty,
            "prompt_mask": empty,
            "completion_ids": torch.zeros(mask.shape, dtype=torch.long),
            "completion_mask": mask,
            "advantages": TENSORS["advantages"],
            "old_per_token_logps": TENSORS["old"],
            "ref_per_token_logps": TENSORS["ref"],
            "sampling_per_token_logps": TENSORS["rollout"],
            "num_items_in_batch": mask.sum(),
        }
        if "correction" in settings:
            inputs["importance_sampling_ratio"] = importance_weights(settings["correction"])
        loss = trainer(settings, logprobs, entropies)._compute_loss(None, inputs)
        gradients = torch.autograd.grad(loss, [logprobs, entropies], allow_unused=True, materialize_grads=True)
        outputs[f"{name}/loss"] = loss.detach().numpy()
        outputs[f"{name}/gradient"] = torch.stack(gradients).numpy()
    np.savez(sys.argv[2], **outputs)


if __name__ == "__main__":
    main()
