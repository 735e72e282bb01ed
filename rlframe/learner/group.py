"""`LearnerGroup`: the ranks of one ZeRO-3 learner, called together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import ray

from rlframe.actors.calls import numbered, wait
from rlframe.batch.samples import deduct, packed_tokens, shard, to_probes
from rlframe.errors import RunFailed
from rlframe.objective import combine
from rlframe.types import ScoredGroup, StepReport, TrainSample
from rlframe.weights.snapshot import Snapshot

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from rlframe.objective import Objective
    from rlframe.objective.correction import Correction

NAMED = 8  # samples that an error names


class LearnerGroup:
    """Typed handle over rank actors, which `cluster.py` makes and ends. Ranks run in lockstep.

    Whatever a rank raises is raised here, also while others wait for it; Stalled where one does not answer.
    """

    def __init__(
        self,
        ranks: list[ActorHandle],
        objective: Objective,
        *,
        micro_batch_tokens: int,
        share_prompts: bool,
        sequence_parallel: int,
        timeout_s: float,
        max_skipped: int,
    ) -> None:
        """`sequence_parallel`: neighbouring ranks that hold a micro-batch together, each as many tokens of it.

        `max_skipped`: steps in a row without any finite update that end the run.
        """
        self.ranks = ranks
        self.objective = objective
        self._objective = ray.put(objective)
        self.micro_batch_tokens = micro_batch_tokens
        self.share_prompts = share_prompts
        self.sequence_parallel = sequence_parallel
        self.timeout_s = timeout_s
        self.max_skipped = max_skipped
        self.version = 0
        self._penalties: dict[str, float] = {}  # of the step to come, for its report

    def step(self, *minibatches: list[TrainSample]) -> StepReport:
        """The policy's next version, by an update on each of `minibatches`, and what the step measured.

        An update whose loss or gradient is not finite is left out; a version without any has the weights of the one
        before. Raises RunFailed naming the samples at the `max_skipped`th such version in a row.
        """
        # [minibatches][ranks][micro-batches][samples]
        shares = [self._shares(samples) for samples in minibatches]
        of_ranks = [[share[rank] for share in shares] for rank in range(len(self.ranks))]
        calls = [
            rank.step.remote(own, self._objective, self.version) for rank, own in zip(self.ranks, of_ranks, strict=True)
        ]
        sums = self._wait(calls, f"take step {self.version + 1}")
        self.version += 1
        if sums[0]["skipped_in_a_row"] >= self.max_skipped:
            raise RunFailed(self._why_skipped())
        packed = [[batch for share in own for batch in share] for own in of_ranks[:: self.sequence_parallel]]
        packing = _packing(packed, self.sequence_parallel * self.micro_batch_tokens, self.share_prompts)
        return StepReport(
            policy_version=self.version, metrics=self._penalties | _means(sums) | _routing(sums) | packing
        )

    def penalized(self, groups: list[ScoredGroup]) -> list[ScoredGroup]:
        """The groups with the KL to the reference taken off their rewards, where the objective has it there."""
        kl = self.objective.kl
        if kl is None or kl.place == "loss" or not (probes := to_probes(groups)):
            return groups
        shares = self._shares(list(probes.values()))
        calls = [rank.divergences.remote(share, kl.estimator) for rank, share in zip(self.ranks, shares, strict=True)]
        answers = self._wait(calls, "compare with the reference")
        found = {
            id(sample): divergence
            for share, answer in zip(shares, answers, strict=True)
            for samples, row in zip(share, answer, strict=True)
            for sample, divergence in zip(samples, row, strict=True)
        }
        penalties = {place: kl.weight * found[id(sample)] for place, sample in probes.items()}
        self._penalties = {"reward/kl_penalty": fmean(penalties.values())}
        return deduct(groups, penalties)

    def correct(self, correction: Correction | None) -> None:
        """From the next step on, losses are corrected so."""
        self.objective = replace(self.objective, correction=correction)
        self._objective = ray.put(self.objective)

    def publish(self, *, whole: bool) -> Snapshot:
        """The current version, as references; `whole`: every value travels, also where deltas would do."""
        calls = [rank.publish.remote(self.version, whole=whole) for rank in self.ranks]
        return Snapshot(version=self.version, ranks=self._wait(calls, f"publish version {self.version}"))

    def send(self) -> None:
        """Sends the current version from GPU to GPU, to engines that met the ranks at the start."""
        self._wait([rank.send.remote() for rank in self.ranks], f"send version {self.version}")

    def save(self, folder: Path, export: Path | None) -> None:
        """Every rank copies its state; once this returns, they write it into `folder` while training goes on.

        `export`: where a Hugging Face folder of the policy is written beside it.
        """
        self._wait([rank.save.remote(folder, export) for rank in self.ranks], f"copy its state for {folder}")

    def saved(self) -> bool:
        """Whether every rank has written what `save` copied. Raises what ended one of them."""
        return all(self._wait([rank.saved.remote() for rank in self.ranks], "say whether its state is written"))

    def load(self, folder: Path, version: int) -> None:
        """Restores what `save` wrote, also with another number of ranks; the policy is `version` again."""
        self._wait([rank.load.remote(folder) for rank in self.ranks], f"load {folder}")
        self.version = version

    def _shares(self, samples: list[TrainSample]) -> list[list[list[TrainSample]]]:
        """[ranks][micro-batches][samples]; ranks that hold a micro-batch together have the same."""
        together = self.sequence_parallel
        shares = shard(samples, len(self.ranks) // together, together * self.micro_batch_tokens, self.share_prompts)
        return [share for share in shares for _ in range(together)]

    def _why_skipped(self) -> str:
        asked = self._wait([rank.not_finite.remote() for rank in self.ranks], "name samples that are not finite")
        told = list(dict.fromkeys(line for of_rank in asked for line in of_rank))
        more = [f"and {len(told) - NAMED} more"] if len(told) > NAMED else []
        why = told[:NAMED] + more or ["every sample's loss is finite, but the gradient's norm is not"]
        return (
            f"{self.max_skipped} steps in a row had a loss or a gradient that is not finite (learner.max_skipped), "
            f"the last of them step {self.version}:\n" + "\n".join(f"  {line}" for line in why)
        )

    def _wait(self, calls: list[ray.ObjectRef], doing: str) -> list[Any]:
        return wait(numbered("learner", calls), doing, self.timeout_s, "cluster.stall_timeout_s")


def _means(of_ranks: list[dict[str, float]]) -> dict[str, float]:
    """Sums of each rank's tokens -> means over the step's tokens, once for each update that they were in.

    `mismatch/*` are of the first update, before the policy has moved: what is left is between engine and learner, and
    staleness. `policy/*` are of all, and so is `correction/*`. What a skipped update spoils is not finite here either.
    """
    sums = combine(of_ranks)
    updates = of_ranks[0]["updates"]

    def mean(name: str) -> float:
        return sums[name] / sums["tokens"]

    metrics = {
        "learner/loss": sums["loss"] / updates,
        "learner/skipped": of_ranks[0]["skipped"],
        "learner/grad_norm": of_ranks[0]["grad_norm"] / updates,
        "learner/lr": of_ranks[0]["lr"],
        "learner/entropy": mean("entropy"),
        "learner/tokens": sums["packed_tokens"],
        "learner/updates": updates,
        "policy/ratio_mean": mean("ratio"),
        "policy/ratio_max": sums["ratio_max"],
        "policy/clip_fraction": mean("stopped"),
        "policy/k3": mean("k3"),
        "mismatch/k3": sums["first_k3"] / sums["first_tokens"],
        "mismatch/abs_mean": sums["first_abs"] / sums["first_tokens"],
    }
    if "kl" in sums:
        metrics["policy/ref_k3"] = mean("kl")
    if "weight" in sums:
        metrics |= {"correction/weight_mean": mean("weight"), "correction/dropped": mean("dropped")}
    return metrics


def _routing(sums: list[dict[str, float]]) -> dict[str, float]:
    """What a mixture's routers chose, which every rank has summed over all."""
    return {name: value for name, value in sums[0].items() if name.startswith("moe/")}


def _packing(shares: list[list[list[TrainSample]]], micro_batch_tokens: int, share_prompts: bool) -> dict[str, float]:
    per_rank = [[packed_tokens(batch, share_prompts) for batch in share] for share in shares]
    totals = [sum(counts) for counts in per_rank]
    unshared = sum(len(sample.token_ids) for share in shares for batch in share for sample in batch)
    return {
        "learner/micro_batches": float(len(per_rank[0])),
        "learner/fill": sum(totals) / (len(totals) * len(per_rank[0]) * micro_batch_tokens),
        "learner/rank_balance": max(totals) * len(totals) / sum(totals),
        "learner/shared_tokens": float(unshared - sum(totals)),
    }
