"""Shapes of a model whose architecture `families.py` does not know: transformers builds it without values.

Costs the import of torch and transformers, some seconds. Sizes of keys and values in a cache are read from the usual
keys of config.json, so they are upper bounds for layers that keep a state of constant size.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from rlframe.errors import ConfigError
from rlframe.plan.shapes import AttentionShapes, LayerShapes, ModelShapes, Role, TensorShape

# Names of a parameter's modules -> its role, the first match.
ROLES: list[tuple[str, Role]] = [
    (r"shared_expert", "shared"),
    (r"\bexperts\b", "experts"),
    (r"router|\bgate\b", "router"),
    (r"norm|\bln_", "norm"),
    (r"attn|attention|mixer|mamba|conv", "attention"),
]


def built_shapes(folder: Path, settings: dict[str, Any]) -> ModelShapes:
    """`settings`: of the language model in the folder's config.json."""
    from rlframe.model.checkpoint_names import model_on_meta

    if not folder.is_dir():
        raise ConfigError(f"the architecture {settings.get('model_type')} of a GGUF file; give a Hugging Face folder")
    model: Any = model_on_meta(folder)
    config = model.config.get_text_config(decoder=True)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    outer: list[TensorShape] = []
    layers: dict[str, list[TensorShape]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        if parameter is embedding or parameter is head:
            role: Role = "embedding" if parameter is embedding else "head"
            outer.append(TensorShape(name=name, role=role, shape=shape))
        elif found := re.match(r"(.*?\.\d+)\.(.*)", name):
            layers[found[1]].append(TensorShape(name=found[2], role=_role(found[2]), shape=shape))
        else:
            outer.append(TensorShape(name=name, role=_role(name), shape=shape))
    kinds: dict[tuple[TensorShape, ...], int] = defaultdict(int)
    for tensors in layers.values():
        kinds[tuple(tensors)] += 1
    attention = _attention(config)
    return ModelShapes(
        kind=str(settings.get("model_type")),
        hidden=embedding.shape[1],
        vocabulary=head.shape[0],
        tied=embedding is head,
        outer=tuple(outer),
        layers=tuple(_layer(config, tensors, count, attention) for tensors, count in kinds.items()),
        counted_by="transformers",
    )


def _role(name: str) -> Role:
    for pattern, role in ROLES:
        if re.search(pattern, name):
            return role
    return "mlp"


def _layer(config: Any, tensors: tuple[TensorShape, ...], count: int, attention: AttentionShapes) -> LayerShapes:
    experts = max(
        (tensor.shape[0] for tensor in tensors if tensor.role == "experts" and len(tensor.shape) == 3), default=0
    )
    widths = [tensor.shape[0] for tensor in tensors if tensor.role in ("mlp", "shared") and len(tensor.shape) == 2]
    expert_sizes = [tensor.size for tensor in tensors if tensor.role == "experts" and len(tensor.shape) == 3]
    return LayerShapes(
        count=count,
        tensors=tensors,
        attention=attention,
        inner_width=max(widths, default=0),
        expert_width=sum(expert_sizes) // (3 * experts * config.hidden_size) if experts else 0,
        experts=experts,
        chosen_experts=_first(config, "num_experts_per_tok", "moe_topk", "top_k_experts", "num_experts_per_token")
        or experts,
    )


def _attention(config: Any) -> AttentionShapes:
    heads = _first(config, "num_attention_heads", "n_head", "n_heads", "num_heads") or 1
    hidden = _first(config, "hidden_size", "n_embd", "d_model") or 0
    key_heads = _first(config, "num_key_value_heads", "num_kv_heads") or heads
    size = _first(config, "head_dim") or hidden // heads
    latent = _first(config, "kv_lora_rank")
    cached = latent + (_first(config, "qk_rope_head_dim") or 0) if latent else 2 * key_heads * size
    return AttentionShapes(
        query_width=heads * size,
        key_width=key_heads * size,
        value_width=key_heads * size,
        key_heads=key_heads,
        cached_width=cached,
        latent=bool(latent),
        window=None,
    )


def _first(config: Any, *names: str) -> int | None:
    found = (getattr(config, name, None) for name in names)
    return next((value for value in found if isinstance(value, int)), None)
