"""`LearnerGroup`: the ranks of one ZeRO-3 learner, called together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray

from rlframe.calls import numbered, wait
from rlframe.samples import packed_tokens, shard
from rlframe.types import StepReport, TrainSample
from rlframe.weights.broadcast import Broadcast

if TYPE_CHECKING:
    from ray.actor import ActorHandle

    from rlframe.algorithm import Algorithm
    from rlframe.weights.publish import Published


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
    ) -> None:
        """`chunk_bytes`: of an object that carries weights; None where the ranks send them over GPU links."""
        self.ranks = ranks
        self.algorithm = ray.put(algorithm)
        self.micro_batch_tokens = micro_batch_tokens
        self.share_prompts = share_prompts
        self.chunk_bytes = chunk_bytes
        self.timeout_s = timeout_s
        self.version = 0

    def step(self, samples: list[TrainSample]) -> StepReport:
        """One optimizer step on all of `samples`: the policy's next version, and what the step measured."""
        shares = shard(samples, len(self.ranks), self.micro_batch_tokens, self.share_prompts)
        calls = [
            rank.step.remote(share, self.algorithm, self.version)
            for rank, share in zip(self.ranks, shares, strict=True)
        ]
        sums = self._wait(calls, f"take step {self.version + 1}")
        self.version += 1
        return StepReport(
            policy_version=self.version,
            metrics=_means(sums) | _packing(shares, self.micro_batch_tokens, self.share_prompts),
        )

    def weights(self) -> Published | Broadcast:
        """The current weights, ready for `RolloutPool.update`; the driver sees references only."""
        if self.chunk_bytes is None:
            return Broadcast(version=self.version, ranks=self.ranks)
        published = [rank.publish.remote(self.version, self.chunk_bytes) for rank in self.ranks]
        return self._wait(published, f"publish version {self.version}")[0]

    def save(self, folder: Path) -> None:
        """Every rank writes its shard into `folder`."""
        self._wait([rank.save.remote(folder) for rank in self.ranks], f"save into {folder}")

    def load(self, folder: Path, version: int) -> None:
        """Restores what `save` wrote; the policy is `version` again."""
        self._wait([rank.load.remote(folder) for rank in self.ranks], f"load {folder}")
        self.version = version

    def export(self, folder: Path) -> None:
        """Writes a Hugging Face folder of the current policy."""
        self._wait([rank.export.remote(folder) for rank in self.ranks], f"export into {folder}")

    def _wait(self, calls: list[ray.ObjectRef], doing: str) -> list[Any]:
        return wait(numbered("learner", calls), doing, self.timeout_s, "cluster.stall_timeout_s")


def _means(sums: list[dict[str, float]]) -> dict[str, float]:
    """Sums of each rank's tokens -> means over the step's tokens."""

    def total(name: str) -> float:
        return sum(of_rank[name] for of_rank in sums)

    return {
        "learner/loss": total("loss"),
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
