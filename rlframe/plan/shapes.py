"""`ModelShapes`: the tensors of a causal language model, from its config.json alone.

A layer of Qwen3-30B-A3B:

    q_proj      4096 x 2048        experts.gate_up_proj    128 x 1536 x 2048    (one tensor for all experts)
    k_proj       512 x 2048        experts.down_proj       128 x 2048 x 768
    ...                            gate                    128 x 2048

No weights, no torch: a 671B mixture takes a millisecond. `counting.py` counts by the families of `families.py`;
transformers builds the others without values (`built.py`), which takes seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Role = Literal["embedding", "head", "attention", "mlp", "experts", "shared", "router", "norm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorShape:
    """A parameter as the learner holds it: the routed experts of a layer are one parameter."""

    name: str  # without the layer's number
    role: Role
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionShapes:
    """A layer's mixing of tokens, as far as memory and operations depend on it."""

    query_width: int  # heads x head dimension; 0: no attention in this layer
    key_width: int  # key heads x head dimension, for one token
    value_width: int
    key_heads: int
    cached_width: int  # values that an engine keeps for one token: keys and values, or the latent of MLA
    latent: bool  # MLA: every tensor-parallel worker keeps the whole latent
    window: int | None  # tokens that a token attends to; None: all earlier ones


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShapes:
    """Equal layers."""

    count: int
    tensors: tuple[TensorShape, ...]
    attention: AttentionShapes
    inner_width: int  # of the dense MLP, or of the shared experts together; 0: none
    expert_width: int  # of one routed expert; 0: a dense layer
    experts: int
    chosen_experts: int  # for a token

    @property
    def size(self) -> int:
        return sum(tensor.size for tensor in self.tensors)

    @property
    def expert_size(self) -> int:
        """Parameters of the routed experts."""
        return sum(tensor.size for tensor in self.tensors if tensor.role == "experts")

    @property
    def active_size(self) -> int:
        """Parameters that one token passes through."""
        share = self.chosen_experts / self.experts if self.experts else 1.0
        return self.size - self.expert_size + round(self.expert_size * share)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShapes:
    """A model's parameters."""

    kind: str  # transformers' model_type
    hidden: int
    vocabulary: int
    tied: bool  # the head is the embedding
    outer: tuple[TensorShape, ...]  # embeddings, head (unless tied), last norm, and anything else outside the layers
    layers: tuple[LayerShapes, ...]  # by kind
    counted_by: Literal["config.json", "transformers"]

    @property
    def parameters(self) -> int:
        return sum(tensor.size for tensor in self.outer) + sum(kind.count * kind.size for kind in self.layers)

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes through; the embedding counts whole, as published figures count it."""
        return sum(tensor.size for tensor in self.outer) + sum(kind.count * kind.active_size for kind in self.layers)

    @property
    def multiplied_parameters(self) -> int:
        """Parameters in a token's matrix products: `active_parameters` without the look-up in an untied embedding."""
        embedding = 0 if self.tied else self.vocabulary * self.hidden
        return self.active_parameters - embedding

    @property
    def expert_parameters(self) -> int:
        """Parameters of all routed experts."""
        return sum(kind.count * kind.expert_size for kind in self.layers)

    @property
    def layer_count(self) -> int:
        return sum(kind.count for kind in self.layers)

    @property
    def head_size(self) -> int:
        return self.vocabulary * self.hidden

    def tensors(self) -> list[tuple[int, TensorShape]]:
        """(number of such tensors, shape) of every tensor."""
        return [(1, tensor) for tensor in self.outer] + [
            (kind.count, tensor) for kind in self.layers for tensor in kind.tensors
        ]
