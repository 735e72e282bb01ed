"""`LearnerGroup`: the ranks of one ZeRO-3 learner, called together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from rlframe.calls import numbered, wait
from rlframe.errors import RunFailed
from rlframe.samples import packed_tokens, shard
from rlframe.types import StepReport, TrainSample
from rlframe.weights.broadcast import Broadcast

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from rlframe.algorithm import Algorithm
    from rlframe.weights.publish import Published

NAMED = 8  # samples that an error names


class LearnerGroup:
    """Typed handle over rank actors, which `cluster.py` makes and ends. Ranks run in lockstep.

    Whatever a rank raises is raised here, also while others wait for it; Stalled where one does not answer.
    """

    def __init__(
        self,
        ranks: list[ActorHandle],
        algorithm: Algorithm,
        *,
        micro_batch_tokens: int,
        share_prompts: bool,
        chunk_bytes: int | None,
        timeout_s: float,
        max_skipped: int,
    ) -> None:
        """`chunk_bytes`: of an object that carries weights; None where the ranks send them over GPU links.

        `max_skipped`: steps in a row without a finite gradient that end the run.
        """
        self.ranks = ranks
        self.algorithm = ray.put(algorithm)
        self.micro_batch_tokens = micro_batch_tokens
        self.share_prompts = share_prompts
        self.chunk_bytes = chunk_bytes
        self.timeout_s = timeout_s
        self.max_skipped = max_skipped
        self.version = 0

    def step(self, samples: list[TrainSample]) -> StepReport:
        """One optimizer step on all of `samples`: the policy's next version, and what the step measured.

        A step whose loss or gradient is not finite changes nothing, so its version has the weights of the one before.
        Raises RunFailed naming the samples at the `max_skipped`th such step in a row.
        """
        shares = shard(samples, len(self.ranks), self.micro_batch_tokens, self.share_prompts)
        calls = [
            rank.step.remote(share, self.algorithm, self.version)
            for rank, share in zip(self.ranks, shares, strict=True)
        ]
        sums = self._wait(calls, f"take step {self.version + 1}")
        self.version += 1
        if sums[0]["skipped_in_a_row"] >= self.max_skipped:
            raise RunFailed(self._why_skipped())
        packing = _packing(shares, self.micro_batch_tokens, self.share_prompts)
        return StepReport(policy_version=self.version, metrics=_means(sums) | packing)

    def weights(self) -> Published | Broadcast:
        """The current weights, ready for `RolloutPool.update`; the driver sees references only."""
        if self.chunk_bytes is None:
            return Broadcast(version=self.version, ranks=self.ranks)
        published = [rank.publish.remote(self.version, self.chunk_bytes) for rank in self.ranks]
        return self._wait(published, f"publish version {self.version}")[0]

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

    def _why_skipped(self) -> str:
        asked = self._wait([rank.not_finite.remote() for rank in self.ranks], "name samples that are not finite")
        told = [line for of_rank in asked for line in of_rank]
        more = [f"and {len(told) - NAMED} more"] if len(told) > NAMED else []
        why = told[:NAMED] + more or ["every sample's loss is finite, but the gradient's norm is not"]
        return (
            f"{self.max_skipped} steps in a row had a loss or a gradient that is not finite (learner.max_skipped), "
            f"the last of them step {self.version}:\n" + "\n".join(f"  {line}" for line in why)
        )

    def _wait(self, calls: list[ray.ObjectRef], doing: str) -> list[Any]:
        return wait(numbered("learner", calls), doing, self.timeout_s, "cluster.stall_timeout_s")


def _means(sums: list[dict[str, float]]) -> dict[str, float]:
    """Sums of each rank's tokens -> means over the step's tokens."""

    def total(name: str) -> float:
        return sum(of_rank[name] for of_rank in sums)

    return {
        "learner/loss": total("loss"),
        "learner/skipped": sums[0]["skipped"],
        "learner/grad_norm": sums[0]["grad_norm"],
        "learner/lr": sums[0]["lr"],
        "learner/entropy": total("entropy") / total("tokens"),
        "learner/tokens": total("packed_tokens"),
        "mismatch/k3": total("k3") / total("tokens"),
        "mismatch/abs_mean": total("abs") / total("tokens"),
    }


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
