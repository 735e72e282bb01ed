"""Memory of an engine: weights on a worker, the room for keys and values, and the completions that fit into it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlframe.model.precision import WIDTHS
from rlframe.plan.devices import Gpu
from rlframe.plan.numbers import GIB
from rlframe.plan.shapes import LayerShapes, ModelShapes

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig
    from rlframe.rollout.config import RolloutConfig
    from rlframe.rollout.teacher_config import TeacherConfig

BATCHED_TOKENS, SCORED_TOKENS = 8192, 2048  # as `rollout/arguments.py` has them; a test compares
# Assumptions about a worker on a GPU, in bytes.
CONTEXT = int(1.5 * GIB)  # CUDA's context, NCCL's buffers, kernels
GRAPHS = int(1.5 * GIB)  # captured CUDA graphs, with rollout.compile
# Measured on CPUs, where an engine's process has held 250 to 370 MiB beyond weights, batch, keys and values: buffers of
# vLLM, and freed memory that stays with the process.
CPU_REST = 384 << 20
LOGITS_COPIES = 3  # of [sequences, vocabulary] in float32 while tokens are sampled


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineMemory:
    """Bytes of one worker of an engine; keys and values of one copy of the model over its workers."""

    kept: dict[str, int]  # without keys and values
    passing: int  # activations and logits of the largest batch
    cache: int  # room for keys and values on a worker; negative: the weights leave none
    token_bytes: int  # keys and values of a token on a worker
    sequence_bytes: int  # of the longest sequence
    slots: int  # completions at the same time in the whole engine, by rollout.max_concurrent
    copies: int  # of the model in the engine (data parallelism)
    on_gpu: bool
    limit: int  # bytes of the worker's device that it may use; 0: no bound is known

    @property
    def kept_bytes(self) -> int:
        return sum(self.kept.values())

    @property
    def peak_bytes(self) -> int:
        """With keys and values: on a GPU the whole share of `rollout.gpu_memory_share`."""
        return self.kept_bytes + self.passing + max(0, self.cache)

    @property
    def cached_tokens(self) -> int:
        """Tokens in the keys and values of the whole engine."""
        return self.copies * max(0, self.cache) // max(1, self.token_bytes)

    def sequences(self, tokens: float) -> int:
        """Sequences of this length that fit into the whole engine's cache."""
        by_token = self.sequence_bytes if tokens <= 0 else self.token_bytes * tokens
        return int(self.copies * max(0, self.cache) // max(1, by_token))


def engine_memory(run: RunConfig, shapes: ModelShapes, gpu: Gpu | None) -> EngineMemory:
    """`gpu`: of the workers; None on CPUs, and where the kind is unknown."""
    rollout = run.rollout
    width = WIDTHS[rollout.dtype]
    weights = _weights(rollout, shapes, width)
    passing = _passing(run, shapes, width)
    kept = {"weights": weights}
    if rollout.gpus:
        kept["CUDA's context"] = CONTEXT
        kept |= {"CUDA graphs": GRAPHS} if rollout.compile else {}
        limit = int(rollout.gpu_memory_share * gpu.memory) if gpu else 0
        cache = limit - sum(kept.values()) - passing if gpu else 0
    else:
        kept["rest of the process"] = CPU_REST
        limit, cache = 0, rollout.kv_cache_gib * GIB
    cached = 1 if str(rollout.engine_args.get("kv_cache_dtype", "")).startswith("fp8") else width
    stages, longest = rollout.pipeline_parallel, run.max_model_len
    tokens = [(layer, layer.count * _cached_bytes(layer, rollout, cached)) for layer in shapes.layers]
    return EngineMemory(
        kept=kept,
        passing=passing,
        cache=cache,
        token_bytes=-(-sum(size for _, size in tokens) // stages),
        sequence_bytes=-(
            -sum(size * min(longest, layer.attention.window or longest) for layer, size in tokens) // stages
        ),
        slots=rollout.slots,
        copies=rollout.data_parallel,
        on_gpu=bool(rollout.gpus),
        limit=limit,
    )


def teacher_memory(run: RunConfig, teacher: TeacherConfig, shapes: ModelShapes, gpu: Gpu | None) -> EngineMemory:
    """`gpu`: of the workers. A step holds the logits of every token of a batch, and not of its last tokens alone."""
    engine = engine_memory(run.model_copy(update={"rollout": teacher.engine(run.rollout)}), shapes, gpu)
    tokens = SCORED_TOKENS if engine.on_gpu else run.longest_sequence
    return replace(engine, passing=engine.passing + LOGITS_COPIES * 4 * tokens * shapes.vocabulary)


def _weights(rollout: RolloutConfig, shapes: ModelShapes, width: int) -> int:
    """Of the stage with the most: its layers, and the embedding or the head."""
    shards, stages = rollout.tensor_workers, rollout.pipeline_parallel
    divided = shards * rollout.data_parallel if rollout.expert_parallel else shards  # of the experts
    experts = shapes.expert_parameters
    outer = sum(tensor.size for tensor in shapes.outer)
    dense = shapes.parameters - experts - outer
    ends = outer if stages == 1 else max(outer - shapes.head_size, shapes.head_size)
    values = -(-dense // (shards * stages)) + -(-experts // (divided * stages))
    quantised = rollout.engine_args.get("quantization")
    return int((1.06 if quantised else width) * values) + width * -(-ends // shards)


def _passing(run: RunConfig, shapes: ModelShapes, width: int) -> int:
    """Activations of the largest batch of prompts, and logits of all sequences."""
    rollout = run.rollout
    tokens = max(run.max_model_len, BATCHED_TOKENS)
    if not rollout.gpus:  # no chunks of prompts: a batch is at most what enters in one step
        entering = min(rollout.max_concurrent, run.prompts_per_step * rollout.group_size)
        tokens = min(tokens, entering * run.prompts.max_tokens)
    shards = rollout.tensor_workers
    inner = max(
        max(2 * layer.inner_width + layer.inner_width, layer.chosen_experts * 3 * layer.expert_width) // shards
        for layer in shapes.layers
    )
    queries = max(layer.attention.query_width + 2 * layer.attention.value_width for layer in shapes.layers) // shards
    hidden = tokens * width * (4 * shapes.hidden + max(inner, queries))
    sequences = min(rollout.max_concurrent, run.prompts_per_step * rollout.group_size)
    return hidden + LOGITS_COPIES * 4 * sequences * shapes.vocabulary


def _cached_bytes(layer: LayerShapes, rollout: RolloutConfig, width: int) -> int:
    """Of a token in a layer on a worker. Workers share the key heads, one each at least; a latent is whole on each."""
    attention = layer.attention
    if attention.latent:
        return width * attention.cached_width
    shards = min(rollout.tensor_workers, attention.key_heads)
    return width * -(-attention.cached_width // shards)
