"""TRL's losses on given tensors, in an environment of TRL's own: run by trl_losses.py.

    python peer_trl_losses.py inputs.npz outputs.npz '{"grpo": {"loss_type": "grpo"}, ...}'

`_compute_loss` is TRL's, unmodified. It is called on a trainer without a model, whose log-probabilities and entropies
are those of inputs.npz; everything else that it reads is set to what the trainer's constructor makes of its config.
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
    made: Any = object.__new__(GMPOTrainer if settings.get("trainer") == "gmpo" else GRPOTrainer)
    made._get_per_token_logps_and_entropies = lambda *_, **__: (logprobs, entropies, None)
    made.model = SimpleNamespace(training=True)
    made.accelerator = SimpleNamespace(
        num_processes=1, sync_gradients=True, gather=lambda value: value, reduce=lambda value, **_: value
    )
    made.args = SimpleNamespace(delta=settings.get("delta"), use_bias_correction_kl=False, steps_per_generation=1)
    made.current_gradient_accumulation_steps = 1
    made.max_completion_length = logprobs.shape[1]
    made.top_entropy_quantile = 1.0
    made.off_policy_mask_threshold = None
    made.importance_sampling_level = settings.get("importance_sampling_level", "token")
    made.beta = settings.get("beta", 0.0)
    made.epsilon_low = settings.get("epsilon_low", 0.2)
    made.epsilon_high = settings.get("epsilon_high", 0.2)
    made.loss_type = settings["loss_type"]
    made.use_vllm = made.vllm_importance_sampling_correction = "correction" in settings
    made.entropy_coef = settings.get("entropy_coef", 0.0)
    made._entropy_bonus_enabled = made.entropy_coef != 0.0
    made.use_adaptive_entropy = made.aux_loss_enabled = False
    made._metrics = {"train": defaultdict(list)}
    return made


def importance_weights(settings: dict[str, Any]) -> torch.Tensor:
    """As `_generate_and_score_completions` computes them, at the level of tokens."""
    ratio = (TENSORS["old"] - TENSORS["rollout"]).exp()
    if "truncate" in settings:
        return ratio.clamp(max=settings["truncate"])
    low, high = settings["mask"]
    return ratio.masked_fill((ratio < low) | (ratio > high), 0.0)


def main() -> None:
    found: dict[str, np.ndarray] = {}
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
            "num_items_in_batch": mask.sum(),
        }
        if "correction" in settings:
            inputs["importance_sampling_ratio"] = importance_weights(settings["correction"])
        loss = trainer(settings, logprobs, entropies)._compute_loss(None, inputs)
        gradients = torch.autograd.grad(loss, [logprobs, entropies], allow_unused=True, materialize_grads=True)
        found[f"{name}/loss"] = loss.detach().numpy()
        found[f"{name}/gradient"] = torch.stack(gradients).numpy()
    np.savez(sys.argv[2], **found)


if __name__ == "__main__":
    main()
