"""One ZeRO-3 rank: a plain class that becomes a Ray actor in `cluster.py`."""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from rlframe.batch.samples import collate
from rlframe.learner import cpu as accelerator
from rlframe.learner import optimizer, state, zero3
from rlframe.learner.finite import not_finite
from rlframe.learner.merge import merged
from rlframe.learner.reference import Reference
from rlframe.learner.schedule import learning_rate
from rlframe.learner.shards import write
from rlframe.learner.source import Zero3Source
from rlframe.learner.ulysses import Ulysses
from rlframe.model import lora
from rlframe.model.checkpoint_names import checkpoint_name
from rlframe.model.moe import Routers, blocks_of_separate_experts
from rlframe.model.policy import PREFIX, Policy, load_model
from rlframe.objective import combine, kl
from rlframe.types import TrainBatch, TrainSample

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from torch import Tensor

    from rlframe.learner.config import LearnerConfig
    from rlframe.objective import Objective
    from rlframe.weights.publish import Share

REFERENCE = "reference"  # the folder of the reference's shards in that of the learner's


class LearnerRank:
    """A rank of the learner: holds its slice of the parameters and of the optimizer's state.

    Every method is a collective: all ranks are called together, or they wait for each other.
    """

    def __init__(self, name: str, config: LearnerConfig, model_path: Path, temperature: float, steps: int) -> None:
        """`temperature`: of sampling, so that log-probabilities are of the same distribution; `steps`: of the run."""
        self.name = name
        self.config = config
        self.model_path = model_path
        self.temperature = temperature
        self.steps = steps
        self.reference: Reference | None = None
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.skipped = 0  # steps since the run's start without any update
        self.skipped_in_a_row = 0
        self.writer = ThreadPoolExecutor(1, "checkpoint")
        self.suspects: list[str] = []  # samples of the last step with a number that is not finite

    def __repr__(self) -> str:  # Ray's errors and logs name the actor by this
        return self.name

    def connect(self, address: str, rank: int, timeout_s: float) -> None:
        """Meets the other ranks at `address`, loads the model and partitions it."""
        import deepspeed

        # DeepSpeed reads these three from the environment only; an actor sees no device but its own.
        os.environ.update(RANK=str(rank), LOCAL_RANK="0", WORLD_SIZE=str(self.config.ranks))
        if self.device.type == "cpu":
            accelerator.use_cpu()
        torch.manual_seed(0)  # nothing in the update is random; this only pins what libraries might draw
        deepspeed.init_distributed(
            dist_backend="nccl" if self.device.type == "cuda" else "gloo",
            init_method=f"tcp://{address}",
            rank=rank,
            world_size=self.config.ranks,
            timeout=timedelta(seconds=timeout_s),
            auto_mpi_discovery=False,
            verbose=False,
        )
        dtype = getattr(torch, self.config.dtype)
        model = load_model(self.model_path, dtype, self.config.attention)
        self.model_config = model.config
        if self.config.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if self.config.lora:
            lora.add(model, self.config.lora)
        size = self.config.sequence_parallel
        self.ulysses = Ulysses(model, rank=rank, ranks=self.config.ranks, size=size) if size > 1 else None
        policy = Policy(model, getattr(torch, self.config.head_dtype), self.ulysses)
        for block in blocks_of_separate_experts(policy):
            deepspeed.utils.set_z3_leaf_module(block, True)
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=policy, optimizer=optimizer.build(policy, self.config), config=zero3.settings(self.config)
        )
        self.engine.train()
        self.source = Zero3Source(self.engine.module, PREFIX)
        self.routers = Routers(policy, self.config.moe.bias_update_rate)  # last: AutoEP has routers of its own
        self.rank = rank

    def keep_reference(self, offload: bool) -> None:
        """From now on a copy of the policy as it is stays beside it, for objectives with a KL."""
        self.reference = Reference(self.engine, rank=self.rank, offload=offload)

    def step(self, minibatches: list[list[list[TrainSample]]], objective: Objective, version: int) -> dict[str, float]:
        """The policy's next version -> sums over this rank's tokens, for the group to add up.

        `minibatches` are this rank's shares: [minibatches][micro-batches][samples]. Each is an update of its own, and
        `epochs` times. `version` is the policy's before the step. The gradient is that of the whole minibatch's
        objective, whatever the split over ranks and micro-batches. Where it is not finite, that update changes
        nothing on any rank, and a step without any update does not count in the schedule either.
        """
        started = time.perf_counter()
        rate = learning_rate(
            version - self.skipped,
            peak=self.config.lr,
            schedule=self.config.schedule,
            warmup_steps=self.config.warmup_steps,
            steps=self.steps,
        )
        optimizer.set_rate(self.optimizer, rate)
        self.suspects = []
        shares = [[self._collate(samples) for samples in share] for share in minibatches]
        updates = self.config.epochs * len(shares)
        if objective.correction is not None and updates > 1:
            shares = self._carrying("old_logprobs", shares)
        if objective.needs_reference:
            with self._reference().in_place():
                shares = self._carrying("ref_logprobs", shares)
        sums: dict[str, float] = {}
        for update in range(updates):
            part = update % len(shares)
            measured, suspects = self.accumulate(minibatches[part], shares[part], objective, first=update == 0)
            applied = self._update(spoiled=bool(suspects))
            self.routers.end_update(applied=applied)
            measured["skipped"] = float(not applied)
            measured |= {"updates": 1.0, "grad_norm": float(self.engine.get_global_grad_norm())}
            sums = combine([sums, measured])
            self.suspects += [line for line in suspects if line not in self.suspects]
        nothing = sums["skipped"] == updates
        self.skipped += nothing
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if nothing else 0
        sums["skipped_in_a_row"] = float(self.skipped_in_a_row)
        if objective.kl is not None and kl.is_due(objective.kl, version + 1):
            self._reference().refresh()
        sums["lr"] = rate
        sums["seconds"] = time.perf_counter() - started
        return sums | self.routers.metrics()

    def accumulate(
        self, samples: list[list[TrainSample]], batches: list[TrainBatch], objective: Objective, *, first: bool
    ) -> tuple[dict[str, float], list[str]]:
        """Adds up this rank's part of an update's gradient -> what it measured, and the samples that are not finite.

        `batches` are the micro-batches of `samples`, of which every rank has the same number. `first`: of the step, so
        that the policy is still the one that was published.
        """
        sums: list[dict[str, float]] = []
        suspects: list[str] = []
        for packed, on_host in zip(samples, batches, strict=True):
            batch = _to(on_host, self.device)
            logprobs, entropies = self.engine(batch, self.temperature)
            if first and objective.correction is not None:
                batch = replace(batch, old_logprobs=logprobs.detach())
            values = {"rollout log-probability": batch.rollout_logprobs, "log-probability": logprobs.detach()}
            losses = objective.token_losses(logprobs, entropies, batch)
            values["loss"] = losses.detach()
            logprobs.register_hook(partial(values.__setitem__, "gradient by its log-probability"))
            loss = losses.sum()
            # ZeRO averages over ranks; the weights already make this a mean over the update, so undo it here.
            self.engine.backward(loss * self.config.ranks, scale_wrt_gas=False)
            suspects += not_finite(packed, batch, values)
            measured = objective.measure(logprobs.detach(), entropies.detach(), batch)
            if first:
                measured |= {f"first_{name}": measured[name] for name in ("tokens", "k3", "abs")}
            measured |= {"loss": float(loss.detach())}
            sums.append(self.ulysses.once(measured) if self.ulysses else measured)
        return combine(sums), suspects

    def _collate(self, samples: list[TrainSample]) -> TrainBatch:
        return collate(samples, self.config.shares_prompts)

    def divergences(self, micro_batches: list[list[TrainSample]], estimator: kl.Estimator) -> list[list[float]]:
        """[micro-batches][samples]: KL(the policy that sampled || reference) in nats, summed over a sample's tokens."""
        sums = []
        with self._reference().in_place():
            for samples in micro_batches:
                batch = self._collate(samples)
                of_tokens = kl.estimate(estimator, batch.rollout_logprobs, self._forward(batch).cpu())
                counted = of_tokens * (batch.loss_weights != 0)
                sums.append(torch.zeros(len(samples)).index_add(0, batch.sequence_ids, counted).tolist())
        return sums

    def _reference(self) -> Reference:
        assert self.reference is not None, "keep_reference comes before an objective with a KL"
        return self.reference

    def _carrying(
        self, field: Literal["old_logprobs", "ref_logprobs"], shares: list[list[TrainBatch]]
    ) -> list[list[TrainBatch]]:
        """The same batches with what the model as it stands gives to their tokens in `field`."""
        return [[replace(batch, **{field: self._forward(batch).cpu()}) for batch in share] for share in shares]

    def _forward(self, batch: TrainBatch) -> Tensor:
        with torch.no_grad():
            logprobs, _ = self.engine(_to(batch, self.device), self.temperature)
        return logprobs

    def _update(self, *, spoiled: bool) -> bool:
        """Lets the optimizer step, unless a loss or the gradient is not finite -> whether it did; all ranks agree.

        DeepSpeed discards a gradient whose norm, summed over all ranks, is infinite or NaN. A rank that has seen a
        loss like that (`spoiled`) spoils its part of the gradient, which may itself be finite, and so tells the others.
        """
        if spoiled:
            self.optimizer.grad_partitions_flat_buffer.fill_(math.nan)
        if self.config.optimizer == "muon" and self.optimizer.has_overflow():
            # DeepSpeed looks at the norm when Muon's momentum has changed already.
            self.optimizer._overflow_clean_up(1.0)
            self.engine._global_grad_norm = math.inf
            applied = False
        else:
            self.engine.step()
            applied = self.engine.was_step_applied()
        if not applied:  # parameters that the next step does not reach would bring the old gradient again
            self.optimizer.grad_partitions_flat_buffer.zero_()
        return applied

    def not_finite(self) -> list[str]:
        """Samples of the last step, of this rank, with a number that is not finite: one line each."""
        return self.suspects

    def logprobs(self, samples: list[TrainSample]) -> list[np.ndarray]:
        """[L] of each sample under the current policy, 0 where the loss weight is 0; no gradient."""
        return [self._forward(collate([sample])).cpu().numpy() for sample in samples]

    def prepare_publishing(self, chunk_bytes: int, full_every: int) -> None:
        """See Publisher."""
        from rlframe.learner.publisher import Publisher

        ranks = self.config.ranks
        self.publisher = Publisher(self.source, self.rank, chunk_bytes=chunk_bytes, ranks=ranks, full_every=full_every)

    def publish(self, version: int, *, whole: bool) -> Share:
        """Puts this rank's slices of the weights into the object store; only adapters are gathered before."""
        with merged(self.engine.module):
            return self.publisher.publish(version, whole=whole)

    def join_engines(
        self, backend: Literal["nccl", "ipc"], engines: list[ActorHandle], address: str, workers: int
    ) -> None:
        """Meets the engines' worker processes for transfers between GPUs."""
        from rlframe.weights.broadcast import sender

        self.sender = sender(backend, engines, self.source, rank=self.rank, address=address, engine_workers=workers)

    def send(self) -> None:
        """Sends the weights to the engines that were joined."""
        with merged(self.engine.module):
            self.sender.send_weights()

    def save(self, folder: Path, export: Path | None) -> None:
        """Copies parameters, moments and counters to the host's memory; a thread writes them into `folder`.

        `export`: where rank 0 writes a Hugging Face folder as well, and beside it one of the adapters where the policy
        has them. `saved` tells when all of it is there.
        """
        shards = {folder: state.snapshot(self.engine.module, self.optimizer, {"skipped": self.skipped}, rank=self.rank)}
        if self.reference is not None:
            shards[folder / REFERENCE] = self.reference.snapshot()
        weights = self._gather() if export else {}
        adapters = self._gather_adapters() if export else {}

        def work() -> None:
            for where, shard in shards.items():
                write(shard, where, self.rank, self.config.ranks)
            if export and weights:
                self._write_export(weights, export)
            if export and adapters and self.config.lora:
                lora.write(adapters, self.config.lora, self.model_path, export.with_name("adapter"))

        self.writing = self.writer.submit(work)

    def saved(self) -> bool:
        """Whether the last `save` is on disk. Raises what ended it."""
        if done := self.writing.done():
            self.writing.result()
        return done

    def load(self, folder: Path) -> None:
        """Restores what `save` wrote with any number of ranks; a run that had no reference begins with its start."""
        self.skipped = state.restore(self.engine.module, self.optimizer, folder)["skipped"]
        if self.reference is not None and (folder / REFERENCE).is_dir():
            self.reference.restore(folder / REFERENCE)

    def export(self, folder: Path) -> None:
        """Writes a Hugging Face folder that transformers and vLLM open; rank 0 writes, all ranks gather."""
        if weights := self._gather():
            self._write_export(weights, folder)

    def _gather(self) -> dict[str, Tensor]:
        """Every weight under its checkpoint name, in rank 0's host memory; nothing elsewhere."""
        with merged(self.engine.module):
            return {name: tensor.to("cpu", copy=True) for name, tensor in self.source if self.rank == 0}

    def _gather_adapters(self) -> dict[str, Tensor]:
        """Every adapter's weight in rank 0's host memory; nothing elsewhere."""
        from deepspeed.runtime.zero import GatheredParameters

        adapters = {name: p for name, p in self.engine.module.named_parameters() if checkpoint_name(name) is None}
        with GatheredParameters(list(adapters.values())):
            whole = adapters.items() if self.rank == 0 else ()
            return {name.removeprefix(PREFIX): p.detach().to("cpu", copy=True) for name, p in whole}

    def _write_export(self, weights: dict[str, Tensor], folder: Path) -> None:
        from safetensors.torch import save_file
        from transformers import AutoTokenizer

        folder.mkdir(parents=True)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        self.model_config.save_pretrained(folder)
        AutoTokenizer.from_pretrained(self.model_path).save_pretrained(folder)


def _to(batch: TrainBatch, device: torch.device) -> TrainBatch:
    fields = {name: getattr(batch, name) for name in TrainBatch.__slots__}
    return TrainBatch(**{name: None if value is None else value.to(device) for name, value in fields.items()})
