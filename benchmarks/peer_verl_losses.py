"""Computes verl's advantages and losses on given tensors, in verl's environment; peer_losses.py runs this file.

All functions are verl's, unmodified: advantage estimators, corrections of the rollout, policy losses and their
aggregation, KL penalties. This file only passes values from each to the next, as verl's trainer does.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from loss_exchange import Tensors, answer
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_rejection_mask
from verl.workers.config import ActorConfig

LOSSES = core_algos.POLICY_LOSS_REGISTRY | {"reinforce": core_algos.compute_policy_loss_reinforce}


def estimated_advantages(settings: dict[str, Any], tensors: Tensors) -> torch.Tensor:
    """[B, T] by the estimator that the settings name."""
    mask, rewards = tensors["mask"], tensors["rewards"]
    last = mask.sum(1).long() - 1

    def at_last_tokens(scores: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(mask).scatter(1, last[:, None], scores[:, None])

    totals = at_last_tokens((rewards * tensors["reward_weights"]).sum(1))
    if "kl_in_reward" in settings:
        weight = settings["kl_in_reward"]
        totals = core_algos.compute_rewards(totals, tensors["old"], tensors["ref"], weight) * mask
    keys = {f"reward{index}": rewards[:, index].numpy() for index in range(rewards.shape[1])}
    arguments = {
        "token_level_rewards": totals,
        "response_mask": mask,
        "index": tensors["prompts"].numpy(),
        "config": {"gdpo_reward_keys": list(keys), "gdpo_reward_weights": tensors["reward_weights"].tolist()},
    }
    if settings["advantages"] == "gdpo":
        whole = torch.cat([torch.ones(len(mask), 1), mask], 1).long()
        arguments |= {"non_tensor_batch": keys, "batch": {"prompts": whole[:, :1], "attention_mask": whole}}
    if settings["advantages"] == "reinforce_plus_plus":
        arguments["config"] = SimpleNamespace(gamma=1.0)
    if settings["advantages"] == "none":
        return totals.sum(1, keepdim=True) * mask
    if "norm_adv_by_std_in_grpo" in settings:
        arguments["norm_adv_by_std_in_grpo"] = settings["norm_adv_by_std_in_grpo"]
    return core_algos.get_adv_estimator_fn(settings["advantages"])(**arguments)[0]


def compute(settings: dict[str, Any], tensors: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
    advantages = estimated_advantages(settings, tensors)
    mode = settings.get("loss_agg_mode", "token-mean")
    # Means are over the batch before rejection.
    whole_batch = {"batch_num_tokens": tensors["mask"].sum(), "global_batch_size": len(tensors["mask"])}
    config = ActorConfig(
        strategy="fsdp", rollout_n=1, use_dynamic_bsz=True, loss_agg_mode=mode, global_batch_info=whole_batch,
        clip_ratio_c=settings.get("clip_ratio_c", 1e9), clip_ratio_low=settings.get("clip_ratio_low", 0.2),
        clip_ratio_high=settings.get("clip_ratio_high", 0.2),
    )  # fmt: skip
    mask, weights = tensors["mask"], None
    if "correction" in settings:
        found, mask, _ = compute_rollout_correction_and_rejection_mask(
            tensors["old"], tensors["rollout"], mask, **settings["correction"]
        )
        weights = None if found is None else found.batch["rollout_is_weights"]
    loss, _ = LOSSES[settings["loss"]](
        tensors["old"], tensors["logprobs"], advantages, mask, mode, config=config, rollout_is_weights=weights
    )
    if "kl_loss_type" in settings:
        divergences = core_algos.kl_penalty(tensors["logprobs"], tensors["ref"], settings["kl_loss_type"])
        mean = core_algos.agg_loss(divergences, mask, mode, **whole_batch)
        loss = loss + settings["kl_loss_coef"] * mean
    if "entropy_coeff" in settings:
        mean = core_algos.agg_loss(tensors["entropies"], mask, mode, **whole_batch)
        loss = loss - settings["entropy_coeff"] * mean
    return advantages, loss


if __name__ == "__main__":
    answer(compute)
