"""`Updater`: one rank's part of an update, from the gradient of a minibatch to the optimizer's step."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from rlframe.actors.activity import doing
from rlframe.batch.collate import to_device
from rlframe.learner.finite import not_finite
from rlframe.objective import mismatch
from rlframe.objective.objective import combine
from rlframe.training import TrainBatch, TrainSample

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.learner.config import LearnerConfig
    from rlframe.learner.ulysses import Ulysses
    from rlframe.model.moe import Routers
    from rlframe.objective.objective import Objective


@dataclass(frozen=True, slots=True)
class Updater:
    """Runs the policy's forward and backward passes and its optimizer. Every method is a collective.

    An update whose loss or gradient is not finite changes nothing on any rank.
    """

    engine: Any  # DeepSpeed's
    optimizer: Any  # DeepSpeed's wrapper of torch's
    config: LearnerConfig
    temperature: float  # of sampling
    device: torch.device
    routers: Routers
    ulysses: Ulysses | None  # None where every rank has whole micro-batches

    def update(
        self, samples: list[list[TrainSample]], batches: list[TrainBatch], objective: Objective, *, first: bool
    ) -> tuple[dict[str, float], list[str]]:
        """Makes one update on a minibatch -> sums over this rank's tokens, and lines on samples that are not finite.

        The arguments are those of `accumulate`.
        """
        sums, suspects = self.accumulate(samples, batches, objective, first=first)
        with doing("step of the optimizer"):
            applied = self._apply(spoiled=bool(suspects))
        self.routers.end_update(applied=applied)
        norm = float(self.engine.get_global_grad_norm())
        return sums | {"skipped": float(not applied), "updates": 1.0, "grad_norm": norm}, suspects

    def accumulate(
        self, samples: list[list[TrainSample]], batches: list[TrainBatch], objective: Objective, *, first: bool
    ) -> tuple[dict[str, float], list[str]]:
        """Adds up this rank's share of an update's gradient -> sums, and lines on samples that are not finite.

        `batches`: the micro-batches of `samples`; every rank has the same number of them. `first`: in the first update
        of a step the policy is still the published one.
        """
        sums: list[dict[str, float]] = []
        suspects: list[str] = []
        for number, (packed, on_host) in enumerate(zip(samples, batches, strict=True), start=1):
            batch = to_device(on_host, self.device)
            with doing(f"forward of micro-batch {number} of {len(batches)}"):
                logprobs, entropies = self.engine(batch, self.temperature)
            if first and objective.corrections:
                batch = replace(batch, old_logprobs=logprobs.detach())
            values = {"rollout log-probability": batch.rollout_logprobs, "log-probability": logprobs.detach()}
            losses = objective.token_losses(logprobs, entropies, batch)
            values["loss"] = losses.detach()
            logprobs.register_hook(partial(values.__setitem__, "gradient by its log-probability"))
            loss = losses.sum()
            # ZeRO averages over ranks. The loss weights already make the sum a mean over the update: undo the average.
            with doing(f"backward of micro-batch {number} of {len(batches)}"):
                self.engine.backward(loss * self.config.ranks, scale_wrt_gas=False)
            suspects += not_finite(packed, batch, values)
            measured = objective.measure(logprobs.detach(), entropies.detach(), batch)
            if first:
                measured |= mismatch.measure(logprobs.detach(), batch)
            measured |= {"loss": float(loss.detach())}
            sums.append(self.ulysses.once(measured) if self.ulysses else measured)
        return combine(sums), suspects

    def _apply(self, *, spoiled: bool) -> bool:
        """Lets the optimizer step, unless a loss or the gradient is not finite -> whether it stepped, on all ranks.

        DeepSpeed discards a gradient whose norm over all ranks is infinite or NaN. A rank with a loss that is not
        finite (`spoiled`) may have a finite gradient, so it fills its gradient with NaN, which tells the other ranks.
        """
        if spoiled:
            self.optimizer.grad_partitions_flat_buffer.fill_(math.nan)
        if self.config.optimizer == "muon" and self.optimizer.has_overflow():
            # DeepSpeed checks the norm only after Muon's momentum has changed.
            self.optimizer._overflow_clean_up(1.0)
            self.engine._global_grad_norm = math.inf
            applied = False
        else:
            self.engine.step()
            applied = self.engine.was_step_applied()
        if not applied:
            # Parameters without a gradient in the next step would apply this one again.
            self.optimizer.grad_partitions_flat_buffer.zero_()
        return applied

    def logprobs(self, batch: TrainBatch) -> Tensor:
        """[T] under the engine's current weights, 0 where the loss weight is 0; no gradient."""
        with torch.no_grad():
            logprobs, _ = self.engine(to_device(batch, self.device), self.temperature)
        return logprobs

    def greedy(self, batch: TrainBatch) -> Tensor:
        """[T, 2]: the log-probability of each token, and 1 where greedy sampling chooses it, else 0; no gradient."""
        with torch.no_grad(), self.engine.module.head.comparing_with_greedy():
            return torch.stack(self.engine(to_device(batch, self.device), self.temperature), dim=1)

    @doing("log-probabilities before the updates")
    def with_logprobs(
        self, field: Literal["old_logprobs", "ref_logprobs"], minibatches: list[list[TrainBatch]]
    ) -> list[list[TrainBatch]]:
        """The same batches with `field` set to log-probabilities under the engine's current weights."""
        return [[replace(batch, **{field: self.logprobs(batch).cpu()}) for batch in batches] for batches in minibatches]
