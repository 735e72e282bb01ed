"""`LearnerGroup`: the ranks of one ZeRO-3 learner, called together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from rlframe.actors.calls import numbered, wait
from rlframe.batch.samples import deduct, in_turn_order, to_probes
from rlframe.batch.shares import S, to_shares
from rlframe.errors import LearnerLost, RunFailed, Stalled
from rlframe.learner import metrics
from rlframe.learner.loss import dead_ranks, loss_of_ranks
from rlframe.training import GroupRecord, Likelihood, Packing, PlannedSample, StepReport
from rlframe.weights.snapshot import Snapshot

if TYPE_CHECKING:
    import numpy as np
    from ray.actor import ActorHandle

    from rlframe.actors.replicas import Handle
    from rlframe.objective.correction import Correction
    from rlframe.objective.objective import Objective
    from rlframe.record.manifest import WriteReport
    from rlframe.weights.transport import DeviceBackend

MAX_NAMED = 8  # samples that an error names
CLIENT_GRACE_S = 10.0  # beyond the bound: rank 0 waits for engines, and the error of rank 0 names the late engine


class LearnerGroup:
    """Typed handle over rank actors in lockstep; `cluster/` starts the actors, and new actors after a loss.

    A rank's exception is raised here, also while other ranks wait for that rank. Raises LearnerLost where a rank has
    died or does not answer in time; all ranks are ended then, because ranks in lockstep cannot go on without one.
    """

    def __init__(
        self,
        ranks: list[ActorHandle],
        objective: Objective,
        *,
        micro_batch_tokens: int,
        packing: Packing,
        sequence_parallel: int,
        timeout_s: float,
        max_skipped: int,
        chat_template: str | None = None,
    ) -> None:
        """`sequence_parallel`: neighbouring ranks that share a micro-batch, each with an equal number of its tokens.

        `max_skipped`: the run ends after this many steps in a row without any finite update. `chat_template`: of
        exported copies; None: the base model's.
        """
        self.ranks = ranks
        self.objective = objective
        self._objective = ray.put(objective)
        self.micro_batch_tokens = micro_batch_tokens
        self.packing: Packing = packing
        self.sequence_parallel = sequence_parallel
        self.timeout_s = timeout_s
        self.max_skipped = max_skipped
        self.chat_template = chat_template
        self.version = 0
        self._penalties: dict[str, float] = {}  # metrics for the next step's report

    def begin_anew(self, ranks: list[ActorHandle]) -> None:
        """Puts new ranks, which hold the base model, in the place of lost ranks."""
        self.ranks = ranks
        self.version = 0

    def dead_ranks(self) -> list[str]:
        """Names of ranks that have died. Blocks for some seconds, and disturbs no rank at work."""
        return dead_ranks(self.ranks)

    def step(self, *minibatches: list[S]) -> StepReport:
        """Makes the policy's next version, by an update on each of `minibatches` -> the step's metrics.

        Samples that are planned get their tokens on the ranks.

        An update whose loss or gradient is not finite is skipped; a version without any update has the weights of the
        previous version. Raises RunFailed naming the samples at the `max_skipped`th such version in a row.
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
        rank_tokens = [rank_sums["share_tokens"] for rank_sums in sums[:: self.sequence_parallel]]
        fill = metrics.fill(packed, rank_tokens, self.sequence_parallel * self.micro_batch_tokens)
        return StepReport(
            policy_version=self.version, metrics=self._penalties | metrics.means(sums) | metrics.routing(sums) | fill
        )

    def apply_kl_penalty(self, groups: list[GroupRecord]) -> list[GroupRecord]:
        """The groups with the KL to the reference subtracted from rewards, if the objective has it in the reward.

        A reward loses the sum over the trajectory's tokens; `token_penalties` tells each token's part.
        """
        self._penalties = {}
        kl = self.objective.kl
        if kl is None or kl.place == "loss":
            return groups
        found = self._token_values("divergences", groups, "compare with the reference")
        if not found:
            return groups
        penalties = {place: kl.weight * values for place, values in found.items()}
        self._penalties = {"reward/kl_penalty": fmean(float(values.sum()) for values in penalties.values())}
        return deduct(groups, penalties)

    def ask(self, groups: list[GroupRecord]) -> list[GroupRecord]:
        """The groups with the current policy's value of each sampled token: a log-probability, or a score."""
        values = self._token_values("values", groups, "compute values of rows")
        return [
            replace(group, asked=[values[p, g] for g in range(len(group.trajectories))])
            for p, group in enumerate(groups)
        ]

    def likelihoods(self, groups: list[GroupRecord]) -> list[Likelihood]:
        """The likelihood of each group's trajectories, all their tokens together, under the current policy."""
        probes = to_probes(groups)
        found = self._ask("likelihoods", list(chain(*probes.values())), "compute the likelihood of rows")
        of_samples = [[found[id(sample)] for sample in samples] for samples in probes.values()]
        return [
            Likelihood(
                logprob_sum=sum(part.logprob_sum for part in parts),
                tokens=sum(part.tokens for part in parts),
                greedy=all(part.greedy for part in parts),
            )
            for parts in of_samples
        ]

    def correct(self, corrections: Sequence[Correction]) -> None:
        """Sets the corrections of losses, from the next step on."""
        self.objective = replace(self.objective, corrections=corrections)
        self._objective = ray.put(self.objective)

    def publish(self, *, whole: bool) -> Snapshot:
        """The current version, as references; `whole`: every value travels, also where deltas would do."""
        calls = [rank.publish.remote(self.version, whole=whole) for rank in self.ranks]
        return Snapshot(version=self.version, ranks=self._wait(calls, f"publish version {self.version}"))

    def join_engines(self, backend: DeviceBackend, engines: dict[str, Handle], workers: int, chunk_bytes: int) -> None:
        """Lets the ranks meet exactly `engines` (name -> actor), each with `workers` worker processes."""
        arguments = (backend, engines, workers, chunk_bytes, self.timeout_s)
        calls = [rank.join_engines.remote(*arguments) for rank in self.ranks]
        self._wait(calls, f"meet {', '.join(engines)} by weights.backend={backend}", CLIENT_GRACE_S)

    def send(self) -> dict[str, int]:
        """Sends the current version from GPU to GPU, to the engines that were met -> tensor -> fingerprint."""
        calls = [rank.send.remote() for rank in self.ranks]
        return self._wait(calls, f"send version {self.version}", CLIENT_GRACE_S)[0]

    def sleep(self, *, keep_parameters: bool) -> int:
        """Moves the ranks' state to the host -> GPU bytes freed. `keep_parameters`: except for the parameters."""
        calls = [rank.sleep.remote(keep_parameters=keep_parameters) for rank in self.ranks]
        return sum(self._wait(calls, "move its state to the host's memory"))

    def wake(self) -> None:
        """Moves the state of all ranks back to the GPUs."""
        self._wait([rank.wake.remote() for rank in self.ranks], "move its state back to its GPU")

    def free_bytes(self) -> int:
        """Memory of the ranks' GPUs that no process uses; 0 on CPUs."""
        return sum(self._wait([rank.free_bytes.remote() for rank in self.ranks], "measure the memory of its GPU"))

    def save(self, folder: Path, export: Path | None) -> None:
        """Every rank copies its state. When this returns, ranks write it into `folder` while training goes on.

        `export`: the folder for a Hugging Face copy of the policy, if any.
        """
        calls = [rank.save.remote(folder, export, self.chat_template) for rank in self.ranks]
        self._wait(calls, f"copy its state for {folder}")

    def saved(self) -> list[WriteReport] | None:
        """The report of each rank on the last `save`; None while a rank still writes."""
        reports = self._wait([rank.saved.remote() for rank in self.ranks], "say whether its state is written")
        return None if None in reports else reports

    def leave_marks(self, folder: Path) -> list[WriteReport]:
        """Lets each rank write a small file into a folder."""
        return self._wait([rank.leave_mark.remote(folder) for rank in self.ranks], f"write a file into {folder}")

    def load(self, folder: Path, version: int) -> None:
        """Restores the files of `save`, also with another number of ranks; the policy has `version` again."""
        self._wait([rank.load.remote(folder) for rank in self.ranks], f"load {folder}")
        self.version = version

    def _token_values(self, method: str, groups: list[GroupRecord], doing: str) -> dict[tuple[int, int], np.ndarray]:
        """(p, g) -> [sampled tokens] of trajectory g of group p, by a method of the ranks; see `to_probes`."""
        if not (probes := to_probes(groups)):
            return {}
        found = self._ask(method, list(chain(*probes.values())), doing)
        return {
            (p, g): in_turn_order(groups[p].trajectories[g], [found[id(sample)] for sample in samples])
            for (p, g), samples in probes.items()
        }

    def _ask(self, method: str, samples: list[PlannedSample], doing: str) -> dict[int, Any]:
        """The ranks' answers to a method that takes their shares of the samples -> by the id() of each sample."""
        shares = self._shares(samples)
        calls = [getattr(rank, method).remote(share) for rank, share in zip(self.ranks, shares, strict=True)]
        return {
            id(sample): value
            for share, answer in zip(shares, self._wait(calls, doing), strict=True)
            for micro_batch, row in zip(share, answer, strict=True)
            for sample, value in zip(micro_batch, row, strict=True)
        }

    def _shares(self, samples: list[S]) -> list[list[list[S]]]:
        """[ranks][micro-batches][samples]; the ranks of a sequence-parallel group have equal shares."""
        size = self.sequence_parallel
        shares = to_shares(samples, len(self.ranks) // size, size * self.micro_batch_tokens, self.packing)
        return [share for share in shares for _ in range(size)]

    def _why_skipped(self) -> str:
        answers = self._wait([rank.not_finite.remote() for rank in self.ranks], "name samples that are not finite")
        suspects = list(dict.fromkeys(line for rank_lines in answers for line in rank_lines))
        rest = [f"and {len(suspects) - MAX_NAMED} more"] if len(suspects) > MAX_NAMED else []
        lines = suspects[:MAX_NAMED] + rest or ["every sample's loss is finite, but the gradient's norm is not"]
        return (
            f"{self.max_skipped} steps in a row had a loss or a gradient that is not finite (learner.max_skipped), "
            f"the last of them step {self.version}:\n" + "\n".join(f"  {line}" for line in lines)
        )

    def _wait(self, calls: Sequence[ray.ObjectRef], doing: str, grace_s: float = 0.0) -> list[Any]:
        try:
            return wait(numbered("learner", list(calls)), doing, self.timeout_s + grace_s, "cluster.stall_timeout_s")
        except (RayError, Stalled) as error:
            if (reason := loss_of_ranks(error, calls)) is None:
                raise
            for rank in self.ranks:
                ray.kill(rank)
            raise LearnerLost(reason) from error
