"""Bytes that a forward pass keeps for the backward pass, and the head's chunks of logits.

Autograd keeps the inputs of products, of activation functions and of norms. One token in a layer of a Llama in
bfloat16, of hidden size h, MLP width I, queries q and keys k:

    two norms     2 x (4 h the input in float32, 2 h normalised, 2 h the output)
    attention     2 (q + 2 k) queries, keys and values, 2 x 2 q the output in two layouts
    MLP           4 x 2 I: the gate, its activation, up, their product
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlframe.plan.shapes import LayerShapes, ModelShapes

# As `model/logprobs.py` has them; a test compares.
CHUNK_BYTES = 256 << 20
GPU_CHUNK_BYTES = 1 << 30
BLOCK_BYTES = 4 << 20  # of a block of logits in float32 on a CPU
# As `model/attention_cpu.py`: on a CPU the attention weights of sequences up to this length are kept, in float32; with
# latent attention those of any length.
SHORT = 384


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A micro-batch's forward and backward pass on a rank."""

    tokens: int  # on this rank
    longest: int  # tokens of a sequence
    width: int  # bytes of an activation's value
    trains_all: bool  # False: adapters alone, so most products keep no input
    on_gpu: bool


def kept_bytes(layer: LayerShapes, hidden: int, run: Pass) -> int:
    """Bytes of all tensors that one layer keeps for its backward pass."""
    width, attention = run.width, layer.attention
    # A norm keeps its input in float32 (in a float32 model that is the residual stream itself).
    norm = 4 * hidden + (2 if run.trains_all else 1) * width * hidden
    norms = max(2, sum(tensor.role == "norm" and tensor.shape == (hidden,) for tensor in layer.tensors)) * norm
    heads = width * (attention.query_width + attention.key_width + attention.value_width)
    queries = attention.query_width
    output = attention.value_width if attention.latent else queries
    mixing = heads + 2 * width * output
    if any(tensor.name in ("q_norm", "k_norm") for tensor in layer.tensors):
        mixing += (4 + width) * (queries + attention.key_width)
    if attention.latent:  # queries, keys and values are each put together from two parts
        mixing += heads
    if not run.on_gpu and queries:
        mixing += 4 * _query_heads(layer) * (run.longest if attention.latent else min(run.longest, SHORT))
    inner = (4 if run.trains_all else 3) * width * layer.inner_width
    if layer.experts:
        # Of each chosen expert the input and the output; the router's input and scores are in float32.
        routed = layer.chosen_experts * width * (2 * hidden + 4 * layer.expert_width)
        inner += routed + 4 * hidden + 3 * 4 * layer.experts
    return run.tokens * (norms + mixing + inner)


def working_bytes(layer: LayerShapes, hidden: int, run: Pass) -> int:
    """Bytes of gradients that are alive together in one layer's backward pass."""
    widths = (3 * layer.inner_width, 3 * layer.chosen_experts * layer.expert_width, 3 * layer.attention.query_width)
    return run.tokens * (run.width * max(widths) + 2 * 4 * hidden)


def layer_bytes(shapes: ModelShapes, run: Pass, *, checkpointing: bool) -> int:
    """Bytes of activations of all layers at the end of the forward pass."""
    if checkpointing:  # the input of each layer
        return shapes.layer_count * run.tokens * shapes.hidden * run.width
    return sum(layer.count * kept_bytes(layer, shapes.hidden, run) for layer in shapes.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadBytes:
    """The language-model head in the backward pass."""

    matrix: int  # a copy of the weights in the type of the product
    gradient: int  # of the weights, at the largest
    logits: int  # a chunk and what the softmax makes of it


def head_bytes(shapes: ModelShapes, run: Pass, *, head_width: int, trained: bool) -> HeadBytes:
    """`head_width`: bytes of a value of the head's product; `trained`: the head's weights have a gradient."""
    size = shapes.head_size
    limit = (GPU_CHUNK_BYTES // 4 if run.on_gpu else CHUNK_BYTES // head_width) // shapes.vocabulary
    chunks = max(1, math.ceil(run.tokens / max(1, limit)))
    chunk = math.ceil(run.tokens / chunks) * shapes.vocabulary
    # On a GPU the softmax of a chunk is two more chunks in float32; on a CPU it runs in blocks.
    logits = chunk * head_width + (2 * 4 * chunk if run.on_gpu else 3 * BLOCK_BYTES)
    gradient = 0
    if trained:
        gradient = 4 * size + (run.width * size if run.width < 4 else 0)
        gradient += head_width * size if head_width < 4 and chunks > 1 else 0
    return HeadBytes(matrix=0 if head_width == run.width else head_width * size, gradient=gradient, logits=logits)


def _query_heads(layer: LayerShapes) -> int:
    attention = layer.attention
    return attention.key_heads * max(1, attention.query_width // max(1, attention.key_width))
