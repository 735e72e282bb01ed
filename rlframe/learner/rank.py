"""`LearnerRank`: one ZeRO-3 rank, a plain class that becomes a Ray actor in `cluster/`."""

from __future__ import annotations

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rlframe.actors.activity import doing
from rlframe.actors.sockets import free_address
from rlframe.batch.collate import collate
from rlframe.learner import meeting, optimizer, state, zero3
from rlframe.learner.bodies import Bodies, to_micro_batches
from rlframe.learner.cpu import use_cpu
from rlframe.learner.divergence import by_sample, divergences, likelihoods
from rlframe.learner.export import gather
from rlframe.learner.loading import load_shards
from rlframe.learner.merge import merged
from rlframe.learner.reference import Reference
from rlframe.learner.schedule import learning_rate
from rlframe.learner.shards import write
from rlframe.learner.sleep import Sleeper
from rlframe.learner.source import AdapterSource, Zero3Source
from rlframe.learner.ulysses import Ulysses
from rlframe.learner.update import Updater
from rlframe.model import lora
from rlframe.model.base_model import require
from rlframe.model.moe import Routers, blocks_of_separate_experts
from rlframe.model.policy import PREFIX, Policy, empty_model
from rlframe.objective import kl
from rlframe.objective.objective import combine
from rlframe.record.manifest import WriteReport, report_on
from rlframe.training import Likelihood, Packing, PlannedSample, TrainSample

if TYPE_CHECKING:
    from rlframe.actors.replicas import Handle
    from rlframe.learner.config import LearnerConfig
    from rlframe.learner.sender import Sender
    from rlframe.objective.objective import Objective
    from rlframe.weights.snapshot import RankShards
    from rlframe.weights.transport import DeviceBackend

REFERENCE = "reference"  # the reference's folder in the learner's folder of a checkpoint


class LearnerRank:
    """A rank of the learner, with its shards of the parameters and of the optimizer's state.

    Every method is a collective: call the method on all ranks, because ranks wait for each other.
    """

    def __init__(
        self,
        name: str,
        config: LearnerConfig,
        model_path: Path,
        temperature: float,
        steps: int,
        packing: Packing,
        scores: bool = False,
    ) -> None:
        """`temperature`: the engine's, so that log-probabilities are of one distribution; `steps`: of the whole run.

        `packing`: of micro-batches, which the self-test has found to be right for the model. `scores`: a head with one
        score takes the place of the language model's, and scores take the place of log-probabilities.
        """
        require(model_path)
        self.packing: Packing = packing
        self.scores = scores
        self.name = name
        self.config = config
        self.model_path = model_path
        self.temperature = temperature
        self.steps = steps
        self.reference: Reference | None = None
        self.sender: Sender | None = None  # of weights.backend nccl and ipc, to the engines of the last meeting
        self.device = torch.device("cuda" if config.gpus else "cpu")
        self.skipped = 0  # steps without any update, since the run's start
        self.skipped_in_a_row = 0
        self.writer = ThreadPoolExecutor(1, "checkpoint")
        self.suspects: list[str] = []  # lines on samples of the last step with a number that is not finite

    def __repr__(self) -> str:
        return self.name  # in Ray's errors and logs

    @doing("load of the model")
    def connect(self, address: str, rank: int, timeout_s: float) -> None:
        """Meets the other ranks at `address`, and loads this rank's shards of the model."""
        import deepspeed

        self.rank = rank
        self._meet(address, timeout_s)
        settings = zero3.settings(self.config)
        dtype = getattr(torch, self.config.dtype)
        model: Any = empty_model(self.model_path, dtype, self.config.attention, self.packing, scores=self.scores)
        load_shards(model, self.model_path, settings)
        if self.config.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        if self.config.lora:
            lora.add(model, self.config.lora)
            if self.scores:
                model.score.weight.requires_grad_(True)  # no adapter has learned to score
        size = self.config.sequence_parallel
        ulysses = Ulysses(model, rank=rank, ranks=self.config.ranks, size=size) if size > 1 else None
        policy = Policy(model, getattr(torch, self.config.head_dtype), self.packing, ulysses)
        for block in blocks_of_separate_experts(policy):
            deepspeed.utils.set_z3_leaf_module(block, True)
        engine, zero_optimizer, *_ = deepspeed.initialize(
            model=policy, optimizer=optimizer.build(policy, self.config), config=settings
        )
        self.engine: Any = engine
        self.optimizer: Any = zero_optimizer
        self.engine.train()
        self.source = Zero3Source(self.engine.module, PREFIX)
        self.sleeper = Sleeper(self.engine, self.optimizer, self.device, self._reference_tensors)
        # Routers are found after `initialize`, because AutoEP replaces the model's routers.
        self.routers = Routers(policy, self.config.moe.bias_update_rate)
        self.updater = Updater(
            self.engine, self.optimizer, self.config, self.temperature, self.device, self.routers, ulysses
        )

    def _meet(self, address: str, timeout_s: float) -> None:
        from deepspeed import init_distributed

        # DeepSpeed reads the three numbers from the environment only. An actor sees a single device, number 0.
        os.environ.update(RANK=str(self.rank), LOCAL_RANK="0", WORLD_SIZE=str(self.config.ranks))
        if self.device.type == "cpu":
            use_cpu()
        torch.manual_seed(0)  # an update draws no random numbers; the seed only pins what libraries might draw
        backend, timeout = "nccl" if self.device.type == "cuda" else "gloo", timedelta(seconds=timeout_s)
        meeting.meet(address, backend, rank=self.rank, ranks=self.config.ranks, timeout=timeout)
        # DeepSpeed takes over the existing group.
        init_distributed(backend, timeout=timeout, auto_mpi_discovery=False, verbose=False)

    def keep_reference(self, offload: bool) -> None:
        """Keeps a frozen copy of the current policy, for objectives with a KL."""
        self.reference = Reference(self.engine, rank=self.rank, offload=offload)

    @doing("step")
    def step(
        self, minibatches: list[list[list[TrainSample | PlannedSample]]], objective: Objective, version: int
    ) -> dict[str, float]:
        """Makes the policy's next version -> sums over this rank's tokens, which the group adds up over ranks.

        `minibatches`: this rank's shares, [minibatches][micro-batches][samples]; each makes `epochs` updates.
        `version`: the policy's before the step. The gradient is that of the whole minibatch's objective, whatever the
        split over ranks and micro-batches. A step without any finite update does not count in the rate's schedule.
        """
        started = time.perf_counter()
        rate = learning_rate(
            version - self.skipped,
            peak=self.config.lr,
            floor=self.config.min_lr,
            schedule=self.config.schedule,
            warmup_steps=self.config.warmup_steps,
            steps=self.steps,
        )
        optimizer.set_rate(self.optimizer, rate)
        self.suspects = []
        samples = to_micro_batches(minibatches, self.packing)
        batches = [[collate(micro_batch, self.packing, version) for micro_batch in share] for share in samples]
        updates = self.config.epochs * len(batches)
        if objective.corrections and updates > 1:
            batches = self.updater.with_logprobs("old_logprobs", batches)
        if objective.needs_reference:
            with self._reference().in_place():
                batches = self.updater.with_logprobs("ref_logprobs", batches)
        sums: dict[str, float] = {}
        for update in range(updates):
            index = update % len(batches)
            measured, suspects = self.updater.update(samples[index], batches[index], objective, first=update == 0)
            sums = combine([sums, measured])
            self.suspects += [line for line in suspects if line not in self.suspects]
        unchanged = sums["skipped"] == updates
        self.skipped += unchanged
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if unchanged else 0
        sums["skipped_in_a_row"] = float(self.skipped_in_a_row)
        if objective.kl is not None and kl.is_due(objective.kl, version + 1):
            self._reference().refresh()
        sums["share_tokens"] = float(sum(len(batch.token_ids) for share in batches for batch in share))
        sums["lr"] = rate
        sums["seconds"] = time.perf_counter() - started
        return sums | self.routers.metrics()

    @doing("comparison with the reference")
    def divergences(self, micro_batches: list[list[PlannedSample]]) -> list[list[np.ndarray]]:
        """[micro-batches][samples][tokens with a loss weight]: the KL of the sampling policy from the reference."""
        bodies = Bodies(sample for samples in micro_batches for sample in samples)
        with self._reference().in_place():
            return [divergences(bodies.build(batch), self.packing, self.updater.logprobs) for batch in micro_batches]

    @doing("values of written rows")
    def values(self, micro_batches: list[list[PlannedSample]]) -> list[list[np.ndarray]]:
        """[micro-batches][samples][tokens with a loss weight]: log-probabilities or scores; no gradient."""
        bodies = Bodies(sample for samples in micro_batches for sample in samples)
        return [by_sample(bodies.build(batch), self.packing, self.updater.logprobs) for batch in micro_batches]

    @doing("likelihood of written rows")
    def likelihoods(self, micro_batches: list[list[PlannedSample]]) -> list[list[Likelihood]]:
        """[micro-batches][samples] under the policy; no gradient."""
        bodies = Bodies(sample for samples in micro_batches for sample in samples)
        return [likelihoods(bodies.build(batch), self.packing, self.updater.greedy) for batch in micro_batches]

    def _reference(self) -> Reference:
        assert self.reference is not None, "keep_reference comes before an objective with a KL"
        return self.reference

    def _reference_tensors(self) -> list[torch.Tensor]:
        return [] if self.reference is None else list(self.reference.tensors.values())

    def not_finite(self) -> list[str]:
        """A line for each of this rank's samples in the last step with a number that is not finite."""
        return self.suspects

    def sleep(self, *, keep_parameters: bool) -> int:
        """Moves this rank's state from the GPU to the host -> bytes freed. Until `wake`, no rank takes a step.

        `keep_parameters`: the parameters stay on the GPU, for a transfer of weights. On a CPU nothing moves.
        """
        if self.device.type == "cpu":
            return 0
        allocated = torch.cuda.memory_allocated()
        self.sleeper.leave(keep_parameters=keep_parameters)
        return allocated - torch.cuda.memory_allocated()

    def wake(self) -> None:
        """Moves everything back that `sleep` moved."""
        if self.device.type != "cpu":
            self.sleeper.come_back()

    def free_bytes(self) -> int:
        """Memory of this rank's GPU that no process uses; 0 on a CPU."""
        return 0 if self.device.type == "cpu" else torch.cuda.mem_get_info()[0]

    def prepare_publishing(self, bucket_bytes: int, full_every: int, adapters_alone: bool) -> None:
        """Makes the Publisher of this rank. `adapters_alone`: publish adapters only."""
        from rlframe.learner.publisher import Publisher

        module, ranks = self.engine.module, self.config.ranks
        self.merging = nullcontext if adapters_alone else partial(merged, module)
        self.publisher = Publisher(
            AdapterSource(module, PREFIX) if adapters_alone else self.source,
            self.rank,
            bucket_bytes=bucket_bytes,
            ranks=ranks,
            full_every=full_every,
        )

    @doing("publication of new weights")
    def publish(self, version: int, *, whole: bool) -> RankShards:
        """Puts this rank's slices of the weights into the object store. Merging gathers adapters, and nothing else."""
        with self.merging():
            return self.publisher.publish(version, whole=whole)

    def join_engines(
        self, backend: DeviceBackend, engines: dict[str, Handle], workers: int, chunk_bytes: int, timeout_s: float
    ) -> None:
        """Meets the worker processes of `engines` (name -> actor), after leaving the group of the last meeting."""
        import ray

        from rlframe.learner.sender import Sender
        from rlframe.weights.client import EngineClient

        client = EngineClient(engines, workers=workers, timeout_s=timeout_s)
        if self.sender is not None:
            self.sender.close()
        address = free_address(ray.util.get_node_ip_address())  # rank 0's counts
        self.sender = Sender(backend, client, self.source, rank=self.rank, address=address, chunk_bytes=chunk_bytes)

    def send(self) -> dict[str, int]:
        """Sends the weights to the engines that were joined -> on rank 0 the fingerprint of each tensor."""
        assert self.sender is not None, "join_engines comes before send"
        with merged(self.engine.module):
            return self.sender.send()

    @doing("copy of its state for a checkpoint")
    def save(self, folder: Path, export: Path | None, chat_template: str | None = None) -> None:
        """Copies parameters, moments and counters to the host's memory; a thread writes them into `folder`.

        `export`: folder for a Hugging Face copy, and adapters in a folder beside; `chat_template`: the copy's, if not
        the base model's. Poll `saved` for the end.
        """
        counters = {"skipped": self.skipped, "skipped_in_a_row": self.skipped_in_a_row}
        states = {folder: state.snapshot(self.engine.module, self.optimizer, counters, rank=self.rank)}
        if self.reference is not None:
            states[folder / REFERENCE] = self.reference.snapshot()
        policy = gather(self.engine.module, self.source, self.rank, self.config.ranks) if export else None

        def write_all() -> list[Path]:
            files = [write(rank_state, path, self.rank, self.config.ranks) for path, rank_state in states.items()]
            if policy and export:
                files += policy.write(
                    export, base=self.model_path, adapter=self.config.lora, chat_template=chat_template
                )
            return files

        self.writing: Future[WriteReport] = self.writer.submit(report_on, self.name, write_all)

    def saved(self) -> WriteReport | None:
        """The report on the files of the last `save`; None while they are being written."""
        return self.writing.result() if self.writing.done() else None

    def leave_mark(self, folder: Path) -> WriteReport:
        """Writes a small file, which tells the driver if this rank's `folder` is the driver's. No collective."""

        def write_mark() -> list[Path]:
            mark = folder / f".mark-of-{self.name}"
            mark.write_text(f"{self.name}, process {os.getpid()}")
            return [mark]

        return report_on(self.name, write_mark)

    @doing("load of a checkpoint")
    def load(self, folder: Path) -> None:
        """Restores the files of `save`, of any number of ranks. Without a saved reference, the present one stays."""
        counters = state.restore(self.engine.module, self.optimizer, folder)
        self.skipped, self.skipped_in_a_row = counters["skipped"], counters.get("skipped_in_a_row", 0)
        if self.reference is not None and (folder / REFERENCE).is_dir():
            self.reference.restore(folder / REFERENCE)
