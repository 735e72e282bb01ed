"""One ZeRO-3 rank: a plain class that becomes a Ray actor in `cluster.py`."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from rlframe.learner import zero3
from rlframe.learner.objective import combine
from rlframe.learner.policy import PREFIX, Policy, load_model
from rlframe.learner.schedule import learning_rate
from rlframe.samples import collate
from rlframe.types import TrainBatch, TrainSample

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from torch import Tensor

    from rlframe.config import LearnerConfig
    from rlframe.learner.objective import Objective
    from rlframe.weights.publish import Published


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
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def __repr__(self) -> str:  # Ray's errors and logs name the actor by this
        return self.name

    def connect(self, address: str, rank: int, timeout_s: float) -> None:
        """Meets the other ranks at `address`, loads the model and partitions it."""
        import deepspeed

        # DeepSpeed reads these three from the environment only; an actor sees no device but its own.
        os.environ.update(RANK=str(rank), LOCAL_RANK="0", WORLD_SIZE=str(self.config.ranks))
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
        policy = Policy(model, getattr(torch, self.config.head_dtype))
        optimizer = torch.optim.AdamW(
            policy.parameters(),
            lr=self.config.lr,
            betas=(self.config.betas[0], self.config.betas[1]),
            weight_decay=self.config.weight_decay,
            fused=True,
        )
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=policy, optimizer=optimizer, config=zero3.settings(self.config)
        )
        self.engine.train()
        self.rank = rank

    def step(self, minibatches: list[list[list[TrainSample]]], objective: Objective, version: int) -> dict[str, float]:
        """The policy's next version -> sums over this rank's tokens, for the group to add up.

        `minibatches` are this rank's shares: [minibatches][micro-batches][samples]. Each is an update of its own, and
        `epochs` times. `version` is the policy's before the step. The gradient is that of the whole minibatch's
        objective, whatever the split over ranks and micro-batches.
        """
        started = time.perf_counter()
        rate = learning_rate(
            version,
            peak=self.config.lr,
            schedule=self.config.schedule,
            warmup_steps=self.config.warmup_steps,
            steps=self.steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        shares = [[collate(samples) for samples in share] for share in minibatches]
        updates = self.config.epochs * len(shares)
        if objective.correction is not None and updates > 1:
            shares = self._carrying("old_logprobs", shares)
        sums: dict[str, float] = {}
        for update in range(updates):
            measured = self.accumulate(shares[update % len(shares)], objective, first=update == 0)
            self.engine.step()
            sums = combine([sums, measured, {"updates": 1.0, "grad_norm": float(self.engine.get_global_grad_norm())}])
        sums["lr"] = rate
        sums["seconds"] = time.perf_counter() - started
        return sums

    def accumulate(self, micro_batches: list[TrainBatch], objective: Objective, *, first: bool) -> dict[str, float]:
        """Adds up this rank's part of an update's gradient; every rank has the same number of micro-batches.

        `first`: of the step, so that the policy is still the one that was published.
        """
        sums: list[dict[str, float]] = []
        for on_host in micro_batches:
            batch = _to(on_host, self.device)
            logprobs, entropies = self.engine(batch, self.temperature)
            if first and objective.correction is not None:
                batch = replace(batch, old_logprobs=logprobs.detach())
            loss = objective.loss(logprobs, entropies, batch)
            # ZeRO averages over ranks; the weights already make this a mean over the update, so undo it here.
            self.engine.backward(loss * self.config.ranks, scale_wrt_gas=False)
            measured = objective.measure(logprobs.detach(), entropies.detach(), batch)
            if first:
                measured |= {f"first_{name}": measured[name] for name in ("tokens", "k3", "abs")}
            sums.append(measured | {"loss": float(loss.detach())})
        return combine(sums)

    def _carrying(
        self, field: Literal["old_logprobs", "ref_logprobs"], shares: list[list[TrainBatch]]
    ) -> list[list[TrainBatch]]:
        """The same batches with what the model as it stands gives to their tokens in `field`."""
        return [[replace(batch, **{field: self._forward(batch).cpu()}) for batch in share] for share in shares]

    def _forward(self, batch: TrainBatch) -> Tensor:
        with torch.no_grad():
            logprobs, _ = self.engine(_to(batch, self.device), self.temperature)
        return logprobs

    def logprobs(self, samples: list[TrainSample]) -> list[np.ndarray]:
        """[L] of each sample under the current policy, 0 where the loss weight is 0; no gradient."""
        return [self._forward(collate([sample])).cpu().numpy() for sample in samples]

    def publish(self, version: int, chunk_bytes: int) -> Published | None:
        """Puts the weights into the object store, layer by layer; rank 0 answers with what it put."""
        from rlframe.weights.publish import publish
        from rlframe.weights.source import Zero3Source

        return publish(Zero3Source(self.engine.module, PREFIX), version, chunk_bytes, keep=self.rank == 0)

    def join_engines(
        self, backend: Literal["nccl", "ipc"], engines: list[ActorHandle], address: str, workers: int
    ) -> None:
        """Meets the engines' worker processes for transfers between GPUs."""
        from rlframe.weights.broadcast import sender
        from rlframe.weights.source import Zero3Source

        source = Zero3Source(self.engine.module, PREFIX)
        self.sender = sender(backend, engines, source, rank=self.rank, address=address, engine_workers=workers)

    def send(self) -> None:
        """Sends the weights to the engines that were joined."""
        self.sender.send_weights()

    def save(self, folder: Path) -> None:
        """Writes this rank's shard of parameters and moments (DeepSpeed's own files) into `folder`."""
        self.engine.save_checkpoint(str(folder), tag="state", save_latest=False)

    def load(self, folder: Path) -> None:
        """Restores what `save` wrote with the same number of ranks."""
        loaded, _ = self.engine.load_checkpoint(str(folder), tag="state")
        if loaded is None:
            raise RuntimeError(f"DeepSpeed found no learner state in {folder}")

    def export(self, folder: Path) -> None:
        """Writes a Hugging Face folder that transformers and vLLM open; rank 0 writes, all ranks gather."""
        from rlframe.weights.source import Zero3Source

        tensors = {
            name: tensor.clone().cpu() if self.rank == 0 else None
            for name, tensor in Zero3Source(self.engine.module, PREFIX)
        }
        if self.rank != 0:
            return
        from safetensors.torch import save_file
        from transformers import AutoTokenizer

        folder.mkdir(parents=True)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        self.model_config.save_pretrained(folder)
        AutoTokenizer.from_pretrained(self.model_path).save_pretrained(folder)


def _to(batch: TrainBatch, device: torch.device) -> TrainBatch:
    fields = {name: getattr(batch, name) for name in TrainBatch.__slots__}
    return TrainBatch(**{name: None if value is None else value.to(device) for name, value in fields.items()})
