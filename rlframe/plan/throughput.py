"""Seconds of a step, from stated throughputs: which side waits, and what the run costs. Nothing here is measured.

A rank reaches `plan.learner_share` of its GPU's stated FLOP/s, and ZeRO-3's transfers go on beside that: a pass takes
the longer of the two. An engine's token takes the time to read its weights and the keys and values of its completions
at `plan.engine_share` of the memory's stated bandwidth, or of the FLOP/s where those take longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlframe.model.precision import WIDTHS
from rlframe.plan.devices import Gpu
from rlframe.plan.engine_memory import EngineMemory
from rlframe.plan.host_memory import synced_bytes
from rlframe.plan.shapes import ModelShapes

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig

HOST_GBS = 10.0  # assumption: copies of a process into the object store and out of it
# Assumptions about a CPU core: FLOP/s and bytes/s of memory that a learner and an engine reach on it.
CORE_FLOPS, CORE_MEMORY = 60e9, 5e9
NODE_GPUS = 8  # assumption: as many network adapters a node, which carry a ring's transfers together
PCIE_GBS = 50.0  # assumption: a GPU from and to the host's memory
GRADIENT_WIDTH = 4  # gradients travel in float32
BACKWARD, AGAIN = 3, 1  # forward and backward pass are 3 forward passes; gradient checkpointing adds 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Speeds that a worker or a rank is assumed to reach on its device."""

    flops: float
    memory: float  # bytes/s
    links: float  # bytes/s to the other ranks
    host: float  # bytes/s to the host's memory


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Expected seconds of parts of a step."""

    rollout_s: float  # engines sample a step's completions
    learner_s: float
    learner_bound: str  # "arithmetic" or "transfers between ranks"
    sync_s: float
    turns_s: float  # learner and engines change places on the same GPUs
    step_s: float
    tokens: int  # prompts once, and completions
    completion_tokens: float  # mean
    concurrent: int  # completions at the same time in all engines
    completion_s: float  # of a mean completion
    longest_s: float  # of the longest completion
    engine_tokens_per_s: float  # of one engine
    rank_tokens_per_s: float
    overlapping: bool  # engines sample while the learner computes

    @property
    def engines_idle(self) -> float:
        return max(0.0, 1 - self.rollout_s / self.step_s)

    @property
    def learner_idle(self) -> float:
        return max(0.0, 1 - (self.learner_s + self.sync_s) / self.step_s)

    @property
    def age(self) -> float:
        """Steps that a mean completion takes: about the age of its first tokens when it is trained on."""
        return self.completion_s / self.step_s


def step_times(
    run: RunConfig,
    shapes: ModelShapes,
    engine: EngineMemory,
    *,
    learner_gpu: Gpu | None,
    engine_gpu: Gpu | None,
    ranks_on_node: int,
    one_node: bool,
) -> StepTimes | None:
    """Expected times of a step; None for an unknown kind of GPU.

    `ranks_on_node`: ranks on the node with the most. `one_node`: the whole run is on one node.
    """
    if (run.learner.gpus and learner_gpu is None) or (run.rollout.gpus and engine_gpu is None):
        return None
    rank_speed = _speed(
        run, learner_gpu, run.plan.learner_share, run.learner.cpus, together=ranks_on_node >= run.learner.ranks
    )
    worker_cpus = run.rollout.cpus / run.rollout.workers
    worker_speed = _speed(run, engine_gpu, run.plan.engine_share, worker_cpus, together=True)
    learner = _Learner(run, shapes, rank_speed)
    sampling = _Sampling(run, shapes, engine, worker_speed)
    learner_s, bound = learner.seconds()
    rollout_s, longest_s = sampling.seconds(overlapping=run.max_staleness > 0)
    sync_s, turns_s = _sync(run, shapes, rank_speed, one_node=one_node), _turns(run, shapes, rank_speed)
    overlapping = run.max_staleness > 0
    together = max(rollout_s, learner_s + sync_s) if overlapping else rollout_s + learner_s + sync_s + turns_s
    return StepTimes(
        rollout_s=rollout_s,
        learner_s=learner_s,
        learner_bound=bound,
        sync_s=sync_s,
        turns_s=turns_s,
        step_s=together,
        tokens=learner.tokens,
        completion_tokens=_completion_tokens(run),
        concurrent=sampling.concurrent * sampling.engines,
        completion_s=_completion_tokens(run) * sampling.token_s(sampling.concurrent),
        longest_s=longest_s,
        engine_tokens_per_s=sampling.tokens_per_s(sampling.concurrent),
        rank_tokens_per_s=learner.tokens / learner_s / run.learner.ranks,
        overlapping=overlapping,
    )


def _speed(run: RunConfig, gpu: Gpu | None, share: float, cpus: float, *, together: bool) -> Speed:
    """`share`: of the stated figures that a GPU reaches; `cpus`: of a worker or rank without a GPU.

    `together`: all ranks are on one node.
    """
    if gpu is not None:
        links = gpu.links_gbs if together else min(gpu.links_gbs, NODE_GPUS * run.plan.network_gbs)
        flops, memory = share * gpu.bf16_tflops * 1e12, share * gpu.memory_gbs * 1e9
        return Speed(flops=flops, memory=memory, links=links * 1e9, host=PCIE_GBS * 1e9)
    cores, copies = max(1.0, cpus), HOST_GBS * 1e9
    return Speed(flops=cores * CORE_FLOPS, memory=cores * CORE_MEMORY, links=copies, host=copies)


def _prompt_tokens(run: RunConfig) -> float:
    return run.prompts.max_tokens / 2


def _completion_tokens(run: RunConfig) -> float:
    return min(run.plan.completion_tokens or run.rollout.max_tokens / 2, run.rollout.max_tokens)


class _Learner:
    def __init__(self, run: RunConfig, shapes: ModelShapes, speed: Speed) -> None:
        self.run, self.shapes, self.speed = run, shapes, speed
        self.completions = run.prompts_per_step * run.rollout.group_size
        self.tokens = round(run.prompts_per_step * _prompt_tokens(run) + self.completions * _completion_tokens(run))

    def seconds(self) -> tuple[float, str]:
        """Seconds of the learner in a step, and their bound by name."""
        run, learner = self.run, self.run.learner
        if run.plan.rank_tokens_per_s:
            return self.tokens / (run.plan.rank_tokens_per_s * learner.ranks), "plan.rank_tokens_per_s"
        updates = learner.minibatches * learner.epochs
        forwards = learner.epochs * (BACKWARD + (AGAIN if learner.gradient_checkpointing else 0))
        extra = (1 if run.kl else 0) + (1 if run.initial_correction and updates > 1 else 0)
        length = _prompt_tokens(run) + _completion_tokens(run)
        attention = sum(2 * layer.count * layer.attention.query_width * length for layer in self.shapes.layers)
        per_forward = 2 * self.shapes.multiplied_parameters + attention
        flops = self.tokens * per_forward * (forwards + extra)
        arithmetic = flops / (learner.ranks * self.speed.flops)
        transfers = self._transfers(forwards, extra)
        return max(arithmetic, transfers), "arithmetic" if arithmetic >= transfers else "transfers between ranks"

    def _transfers(self, forwards: int, extra: int) -> float:
        """ZeRO-3 gathers all weights for every pass over a micro-batch, and reduces all gradients after it."""
        learner = self.run.learner
        if learner.ranks == 1:
            return 0.0
        group_tokens = learner.micro_batch_tokens * learner.ranks  # of a round of micro-batches on all ranks
        rounds = max(learner.minibatches, math.ceil(self.tokens / group_tokens))
        experts = self.shapes.expert_parameters
        values = self.shapes.parameters - experts + experts // (learner.expert_parallel or 1)
        gathered = values * WIDTHS[learner.dtype]
        reduced = 0 if learner.lora else values * GRADIENT_WIDTH
        passes = 2 + (1 if learner.gradient_checkpointing else 0)
        return rounds * (learner.epochs * (passes * gathered + reduced) + extra * gathered) / self.speed.links


class _Sampling:
    """One engine's decoding at full occupation."""

    def __init__(self, run: RunConfig, shapes: ModelShapes, engine: EngineMemory, speed: Speed) -> None:
        self.run, self.shapes, self.engine, self.speed = run, shapes, engine, speed
        self.engines = run.rollout.engines.min
        self.context = _prompt_tokens(run) + _completion_tokens(run) / 2
        step = run.prompts_per_step * run.rollout.group_size
        fitting = engine.sequences(self.context) if engine.cache > 0 else 1
        asked = engine.slots if run.max_staleness else -(-step // self.engines)
        self.concurrent = max(1, min(engine.slots, fitting, asked))

    def token_s(self, concurrent: float) -> float:
        """Seconds from one token of a completion to the next. Stages work one after the other on parts of the batch."""
        rollout, copies = self.run.rollout, self.engine.copies
        here, stages = max(1.0, concurrent / copies), rollout.pipeline_parallel  # completions of one copy of the model
        sharing = here * (copies if rollout.expert_parallel else 1) / stages  # completions that meet at an expert
        weights = stages * self.engine.kept["weights"] * self._touched(sharing) / self.shapes.parameters
        memory = (weights + here * self.context * self.engine.token_bytes) / self.speed.memory
        flops = concurrent * 2 * self.shapes.multiplied_parameters / (rollout.workers * self.speed.flops)
        return max(memory, flops)

    def tokens_per_s(self, concurrent: float) -> float:
        return self.run.plan.engine_tokens_per_s or concurrent / self.token_s(concurrent)

    def seconds(self, *, overlapping: bool) -> tuple[float, float]:
        """Seconds for the completions of a step, and for the longest completion alone."""
        run = self.run
        completions = run.prompts_per_step * run.rollout.group_size
        longest = run.rollout.max_tokens * self.token_s(self.concurrent)
        decoding = completions * _completion_tokens(run) / (self.tokens_per_s(self.concurrent) * self.engines)
        flops = 2 * self.shapes.multiplied_parameters * run.prompts_per_step * _prompt_tokens(run)
        again = self.concurrent * self.engines * self.context if overlapping and run.rollout.cache == "recompute" else 0
        flops += 2 * self.shapes.multiplied_parameters * again
        prompts = flops / (self.engines * run.rollout.workers * self.speed.flops)
        # On-policy, a step waits for its longest completion, most of whose time passes at few completions.
        bound = 0.0 if overlapping else run.rollout.max_tokens * self.token_s(max(1.0, self.concurrent / 4))
        return prompts + max(decoding, bound), longest

    def _touched(self, concurrent: float) -> float:
        """Parameters that a step of decoding reads: experts that no token chose are left out."""
        total = float(self.shapes.multiplied_parameters)
        for layer in self.shapes.layers:
            if layer.experts:
                share = layer.chosen_experts / layer.experts
                total += layer.count * layer.expert_size * ((1 - (1 - share) ** concurrent) - share)
        return total


def _sync(run: RunConfig, shapes: ModelShapes, speed: Speed, *, one_node: bool) -> float:
    size = synced_bytes(run, shapes)
    match run.weights.backend:
        case "object_store":  # ranks write their parts at once; every node of engines reads all
            return size / run.learner.ranks / (HOST_GBS * 1e9) + size / (HOST_GBS * 1e9)
        case "nccl":  # ranks gather layer by layer, and rank 0 broadcasts by its own network adapter
            return size / speed.links + size / (speed.links if one_node else run.plan.network_gbs * 1e9)
        case "ipc":
            return 2 * size / speed.links


def _turns(run: RunConfig, shapes: ModelShapes, speed: Speed) -> float:
    """The learner's state to the host's memory and back."""
    if run.placement != "colocated" or not run.rollout.gpus:
        return 0.0
    state = (WIDTHS[run.learner.dtype] + 16) * shapes.parameters / run.learner.ranks
    return 2 * state / speed.host
