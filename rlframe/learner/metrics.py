"""The learner's metrics, from the sums that ranks report. Pure; runs on the driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlframe.batch.collate import packed_tokens
from rlframe.objective import combine

if TYPE_CHECKING:
    from rlframe.training import Packing, TrainSample


def means(rank_sums: list[dict[str, float]]) -> dict[str, float]:
    """Sums over each rank's tokens -> means over the step's tokens; a token counts once for each of its updates.

    `mismatch/*` come from the first update, before the policy moves. `policy/*` and `correction/*` come from all
    updates. A skipped update makes the metrics of its spoiled values not finite too, except `mismatch/*`.
    """
    sums = combine(rank_sums)
    updates = rank_sums[0]["updates"]

    def mean(name: str) -> float:
        return sums[name] / sums["tokens"]

    metrics = {
        "learner/loss": sums["loss"] / updates,
        "learner/skipped": rank_sums[0]["skipped"],
        "learner/grad_norm": rank_sums[0]["grad_norm"] / updates,
        "learner/lr": rank_sums[0]["lr"],
        "learner/entropy": mean("entropy"),
        "learner/tokens": sums["packed_tokens"],
        "learner/updates": updates,
        "policy/ratio_mean": mean("ratio"),
        "policy/ratio_max": sums["ratio_max"],
        "policy/clip_fraction": mean("stopped"),
        "policy/k3": mean("k3"),
    } | _mismatch(sums)
    if "kl" in sums:
        metrics["policy/ref_k3"] = mean("kl")
    if "weight" in sums:
        metrics |= {"correction/weight_mean": mean("weight"), "correction/dropped": mean("dropped")}
    return metrics


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


def fill(shares: list[list[list[TrainSample]]], micro_batch_tokens: int, packing: Packing) -> dict[str, float]:
    """How evenly and how densely [ranks][micro-batches][samples] fill micro-batches of `micro_batch_tokens`."""
    per_rank = [[packed_tokens(batch, packing) for batch in share] for share in shares]
    totals = [sum(counts) for counts in per_rank]
    unshared = sum(len(sample.token_ids) for share in shares for batch in share for sample in batch)
    return {
        "learner/micro_batches": float(len(per_rank[0])),
        "learner/fill": sum(totals) / (len(totals) * len(per_rank[0]) * micro_batch_tokens),
        "learner/rank_balance": max(totals) * len(totals) / sum(totals),
        "learner/shared_tokens": float(unshared - sum(totals)),
    }
