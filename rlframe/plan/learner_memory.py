"""Memory of a learner's rank: the bytes that it keeps, and the worst instant by name.

Passing bytes do not add up: the worst instant is the largest of a few, since the head's gradient is gone before the
optimizer steps. P parameters over N ranks in bfloat16: 2 P/N weights, 4 master weights, 8 moments of AdamW, 4 gradients
= 18 P/N; in float32 20 P/N. `benchmarks/plan_memory.py` compares with real ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlframe.learner import zero3
from rlframe.model.precision import WIDTHS
from rlframe.plan.activations import Pass, head_bytes, kept_bytes, layer_bytes, working_bytes
from rlframe.plan.shapes import LayerShapes, ModelShapes
from rlframe.plan.shards import RankShards, gathered_size, rank_shards

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig

PREFETCH = 50_000_000  # elements that DeepSpeed gathers ahead by default
MIB = 1 << 20
# Measured: on a CPU a rank's process holds up to 1.3 x what lives in it. Freed memory stays with the process
# (`cluster/cpu.py`), and glibc leaves holes in it.
HOLES = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """Bytes of one rank, by name. On a CPU the device is the host, so `host` is empty."""

    kept: dict[str, int]  # on the device
    instants: dict[str, int]  # on the device, beyond the kept bytes
    host: dict[str, int]  # kept in the host's memory: offloaded state, a sleeping rank, buffers
    checkpoint: int  # the copy in the host's memory while a checkpoint is written
    on_gpu: bool

    @property
    def kept_bytes(self) -> int:
        return sum(self.kept.values())

    @property
    def worst_instant(self) -> str:
        return max(self.instants, key=self.instants.__getitem__)

    @property
    def holes(self) -> int:
        """Bytes of the host's memory that a process without a GPU holds and does not use."""
        return 0 if self.on_gpu else int(HOLES * (self.kept_bytes + self.instants[self.worst_instant]))

    @property
    def peak_bytes(self) -> int:
        """On the device, a checkpoint that is being written apart."""
        return self.kept_bytes + self.instants[self.worst_instant] + self.holes

    @property
    def host_bytes(self) -> int:
        """The most that the rank's process has in the host's memory, its libraries apart."""
        return sum(self.host.values()) + self.checkpoint + (0 if self.on_gpu else self.peak_bytes)


def tokens_of_a_pass(run: RunConfig) -> int:
    """Tokens of a full micro-batch on a rank; fewer where a rank's share of the step is smaller."""
    learner = run.learner
    groups = learner.ranks // learner.sequence_parallel
    step = run.prompts_per_step * (run.prompts.max_tokens + run.rollout.group_size * run.rollout.max_tokens)
    share = max(run.longest_sequence, -(-step // (groups * learner.minibatches))) // learner.sequence_parallel
    return min(learner.micro_batch_tokens, max(1, share))


def rank_memory(run: RunConfig, shapes: ModelShapes, tokens: int | None = None) -> RankMemory:
    """`tokens`: of the fullest micro-batch; None: by the config."""
    learner = run.learner
    shards = rank_shards(shapes, learner)
    width = WIDTHS[learner.dtype]
    forward = Pass(
        tokens=tokens or tokens_of_a_pass(run),
        longest=run.longest_sequence,
        width=width,
        trains_all=learner.lora is None,
        on_gpu=bool(learner.gpus),
    )
    kept, host = _kept(run, shards, width)
    passing = _Passing(run, shapes, forward, shards)
    checkpoint = _checkpoint(run, shapes, shards, width) if run.checkpoint.every else 0
    return RankMemory(
        kept=kept, instants=passing.instants(), host=host, checkpoint=checkpoint, on_gpu=bool(learner.gpus)
    )


def _kept(run: RunConfig, shards: RankShards, width: int) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes on the device and on the host, by name."""
    learner, kl = run.learner, run.kl
    weights = {"weights": width * shards.all}
    optimizer = {
        "master weights": 4 * shards.trained,  # a copy also of parameters in float32
        "optimizer's moments": 8 * (shards.trained - shards.muon) + 4 * shards.muon,
        "gradients": 4 * shards.trained,
    }
    reduction = {"reduction bucket": 4 * _bucket(run)}
    reference = {"reference": width * shards.trained} if kl else {}
    if learner.offload_optimizer:
        optimizer["gradients for the optimizer"] = 4 * shards.trained
    if not learner.gpus:
        return weights | optimizer | reduction | reference, {}
    device, host = dict(reduction), {"bucket for publishing": _publishing_bucket(run)}
    (host if learner.offload_parameters else device).update(weights)
    (host if learner.offload_optimizer else device).update(optimizer)
    (host if kl and kl.offload else device).update(reference)
    if run.placement == "colocated" and run.rollout.gpus:
        host["state of a sleeping rank"] = sum(device.values())
    return device, {name: size for name, size in host.items() if size}


def _bucket(run: RunConfig) -> int:
    return int(zero3.settings(run.learner)["zero_optimization"]["reduce_bucket_size"])


def _publishing_bucket(run: RunConfig) -> int:
    return run.weights.chunk_mib * MIB if run.weights.backend == "object_store" else 0


def _checkpoint(run: RunConfig, shapes: ModelShapes, shards: RankShards, width: int) -> int:
    """Master weights and moments, the reference, and the rank's part of an export."""
    moments = 8 * (shards.trained - shards.muon) + 4 * shards.muon
    export = width * -(-shapes.parameters // run.learner.ranks) if run.checkpoint.export else 0
    return 4 * shards.trained + moments + (width * shards.trained if run.kl else 0) + export


class _Passing:
    """Bytes that come and go in a step, of one rank."""

    def __init__(self, run: RunConfig, shapes: ModelShapes, forward: Pass, shards: RankShards) -> None:
        self.run, self.shapes, self.forward, self.shards = run, shapes, forward, shards
        self.learner = run.learner
        self.zero = zero3.settings(run.learner)["zero_optimization"]
        self.width = forward.width
        checkpointing = run.learner.gradient_checkpointing
        self.activations = layer_bytes(shapes, forward, checkpointing=checkpointing)

    def instants(self) -> dict[str, int]:
        head = head_bytes(
            self.shapes, self.forward, head_width=WIDTHS[self.learner.head_dtype], trained=self.learner.lora is None
        )
        size = self.shapes.head_size
        hidden = self.forward.tokens * self.shapes.hidden * (4 + 3 * self.width)  # after the last layer
        gathered_head = self._gathered(size)
        trained_head = self.learner.lora is None
        # The gradient of a tied head waits for the embedding's.
        waiting = self.width * size if trained_head and self.shapes.tied else 0
        found = {
            "backward pass of the head": self.activations
            + hidden
            + gathered_head
            + head.matrix
            + head.gradient
            + head.logits,
            "optimizer's step": self._optimizer(),
        }
        if trained_head:
            if not self.shapes.tied:
                found["reduction of the head's gradient"] = self.activations + hidden + self._reduction([size])
            found["reduction of the embedding's gradient"] = (
                waiting + self._reduction([size]) + self._gathered(0) + hidden
            )
        for layer in self.shapes.layers:
            kind = "of experts" if layer.experts else "of a layer"
            found[f"backward pass {kind}"] = self.activations + waiting + self._layer(layer)
        if self.learner.gpus and self.run.weights.backend != "object_store":
            found["transfer of weights"] = self._transfer()
        return found

    def _layer(self, layer: LayerShapes) -> int:
        hidden = self.shapes.hidden
        again = kept_bytes(layer, hidden, self.forward) if self.learner.gradient_checkpointing else 0
        sizes = [gathered_size(tensor, self.learner) for tensor in layer.tensors]
        trained = sizes if self.learner.lora is None else [0]
        experts = [
            gathered_size(tensor, self.learner) for tensor in layer.tensors if tensor.role == "experts"
        ]  # one module: gathered together
        gathered = self._gathered(max(sum(experts), max(sizes)))
        return again + working_bytes(layer, hidden, self.forward) + gathered + self._reduction(trained)

    def _gathered(self, module: int) -> int:
        """Bytes of a module's gathered parameters, and of those that are gathered ahead. A single rank gathers none."""
        if self.learner.ranks == 1 and not self.learner.offload_parameters:
            return 0
        ahead = int(self.zero.get("stage3_prefetch_bucket_size", PREFETCH))
        return self.width * (module + min(ahead, self.shapes.parameters))

    def _reduction(self, sizes: list[int]) -> int:
        """Bytes of gradients on their way to the shards, of tensors of these numbers of values in one module.

        Gradients that fit the bucket are copied there; several ranks put them in order for their peers, once more. A
        larger one is copied in float32, beside those of the same module that wait.
        """
        bucket = int(self.zero["reduce_bucket_size"])
        large = [size for size in sizes if size > bucket]
        small = [size for size in sizes if size <= bucket]
        ordered = 4 * min(bucket, sum(small)) if self.learner.ranks > 1 else 0
        if not large:
            return self.width * max(small, default=0) + ordered
        exact = 4 * max(large) if self.width < 4 or self.learner.ranks > 1 else 0
        return self.width * sum(large) + exact

    def _optimizer(self) -> int:
        """The gradient of a sub-group, flattened; with Muon also whole gradients and the orthogonalisation."""
        step = int(self.zero["sub_group_size"])
        shard = -(-self.shards.largest_trained // self.learner.ranks)
        flat = 0 if self.learner.offload_optimizer and self.learner.gpus else 4 * min(self.shards.trained, step + shard)
        if self.learner.optimizer == "muon":
            bucket = max(int(self.zero["reduce_bucket_size"]), self._largest_matrix())
            flat += 4 * 4 * bucket
        return flat

    def _largest_matrix(self) -> int:
        return max(
            (t.size for _, t in self.shapes.tensors() if len(t.shape) == 2 and t.role not in ("embedding", "head")),
            default=0,
        )

    def _transfer(self) -> int:
        """A whole layer, and chunks on their way."""
        largest = max([layer.size for layer in self.shapes.layers] + [self.shapes.head_size])
        return self.width * 2 * largest + 2 * self.run.weights.chunk_mib * MIB
