"""The learner's metrics, from the sums that ranks report. Pure; runs on the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlframe.objective.objective import combine

if TYPE_CHECKING:
    from rlframe.training import PlannedSample, TrainSample

# Metric -> the ranks' sum over counted tokens.
TOKEN_MEANS = {
    "learner/entropy": "entropy",
    "policy/ratio_mean": "ratio",
    "policy/clip_fraction": "stopped",
    "policy/k3": "k3",
    "policy/ref_k3": "kl",
    "correction/weight_mean": "weight",
    "correction/dropped": "dropped",
}


def means(rank_sums: list[dict[str, float]]) -> dict[str, float]:
    """Sums over each rank's tokens -> means over the step's tokens; a token counts once for each of its updates.

    `mismatch/*` come from the first update, before the policy moves. `policy/*` and `correction/*` come from all
    updates. A skipped update makes the metrics of its spoiled values not finite too, except `mismatch/*`. Where
    no token counts, because all are too old, there are no means.
    """
    sums = combine(rank_sums)
    updates = rank_sums[0]["updates"]
    metrics = {
        "learner/loss": sums["loss"] / updates,
        "learner/skipped": rank_sums[0]["skipped"],
        "learner/grad_norm": rank_sums[0]["grad_norm"] / updates,
        "learner/lr": rank_sums[0]["lr"],
        "learner/tokens": sums["packed_tokens"],
        "learner/updates": updates,
        "policy/ratio_max": sums["ratio_max"],
    }
    if tokens := sums["tokens"]:
        metrics |= {metric: sums[name] / tokens for metric, name in TOKEN_MEANS.items() if name in sums}
    return metrics | _mismatch(sums)


def _mismatch(sums: dict[str, float]) -> dict[str, float]:
    """Engine against learner: tokens of the published policy version, and under `*_stale` tokens of older versions.

    Without such a token there is a count of 0, and no mean.
    """
    metrics = {}
    for age, suffix in (("current", ""), ("stale", "_stale")):
        tokens = metrics[f"mismatch/tokens{suffix}"] = sums[f"{age}_tokens"]
        if tokens:
            metrics[f"mismatch/k3{suffix}"] = sums[f"{age}_k3"] / tokens
            metrics[f"mismatch/abs_mean{suffix}"] = sums[f"{age}_abs"] / tokens
    return metrics


def routing(rank_sums: list[dict[str, float]]) -> dict[str, float]:
    """`moe/*`: the choices of a mixture's routers, which every rank has summed over all ranks."""
    return {name: value for name, value in rank_sums[0].items() if name.startswith("moe/")}


def fill(
    shares: list[list[list[PlannedSample | TrainSample]]], rank_tokens: list[float], micro_batch_tokens: int
) -> dict[str, float]:
    """How evenly and how densely [ranks][micro-batches][samples] fill micro-batches of `micro_batch_tokens`.

    `rank_tokens`: packed tokens of each rank.
    """
    unshared = sum(sample.tokens for share in shares for batch in share for sample in batch)
    return {
        "learner/micro_batches": float(len(shares[0])),
        "learner/fill": sum(rank_tokens) / (len(shares) * len(shares[0]) * micro_batch_tokens),
        "learner/rank_balance": max(rank_tokens) * len(shares) / sum(rank_tokens),
        "learner/shared_tokens": float(unshared - sum(rank_tokens)),
    }
