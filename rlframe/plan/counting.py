"""`model_shapes`: the tensors of a model from its config.json, by its family."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rlframe.errors import ConfigError
from rlframe.plan.families import FAMILIES, Family, Flag, Mixture
from rlframe.plan.shapes import AttentionShapes, LayerShapes, ModelShapes, Role, TensorShape


def model_shapes(settings: dict[str, Any]) -> ModelShapes | None:
    """The shapes of the model of a config.json; None: its architecture is not in `FAMILIES`.

    Raises ConfigError where config.json lacks a size.
    """
    kind = str(settings.get("model_type"))
    family = FAMILIES.get(kind)
    if family is None:
        return None
    try:
        return _shapes(kind, family, settings)
    except KeyError as error:
        raise ConfigError(
            f"config.json has no {error.args[0]}, which sizes of a {kind} need; give the folder of a whole model"
        ) from None


def _shapes(kind: str, family: Family, settings: dict[str, Any]) -> ModelShapes:
    hidden, vocabulary = settings["hidden_size"], settings["vocab_size"]
    tied = settings.get("tie_word_embeddings")
    tied = family.tied if tied is None else bool(tied)
    outer = [_tensor("embed_tokens", "embedding", vocabulary, hidden)]
    outer += [] if tied else [_tensor("lm_head", "head", vocabulary, hidden)]
    outer += [_tensor("norm", "norm", hidden)] * family.norm_vectors
    windows = _windows(family, settings)
    kinds = Counter(zip(_layers_with_experts(family, settings), windows, strict=True))
    layers = [
        _layer(family, settings, experts=experts, window=window, count=count)
        for (experts, window), count in kinds.items()
    ]
    return ModelShapes(
        kind=kind,
        hidden=hidden,
        vocabulary=vocabulary,
        tied=tied,
        outer=tuple(outer),
        layers=tuple(layers),
        counted_by="config.json",
    )


def _layer(family: Family, settings: dict[str, Any], *, experts: bool, window: int | None, count: int) -> LayerShapes:
    hidden = settings["hidden_size"]
    attention, tensors = (_latent if family.latent else _heads)(family, settings, window)
    tensors += [_tensor(f"norm_{number}", "norm", hidden) for number in range(family.norms * family.norm_vectors)]
    mixture = family.mixture
    if mixture is None or not experts:
        width = settings["intermediate_size"]
        tensors += _mlp(family, settings, "mlp", "mlp", hidden, width)
        return LayerShapes(
            count=count,
            tensors=tuple(tensors),
            attention=attention,
            inner_width=width,
            expert_width=0,
            experts=0,
            chosen_experts=0,
        )
    number, width = _experts(mixture, settings), settings[mixture.width]
    tensors.append(_tensor("gate", "router", number, hidden))
    tensors.append(_tensor("experts.gate_up_proj", "experts", number, 2 * width, hidden))
    tensors.append(_tensor("experts.down_proj", "experts", number, hidden, width))
    if mixture.router_bias:
        tensors.append(_tensor("gate.bias", "router", number))
    if mixture.expert_bias:
        tensors.append(_tensor("experts.gate_up_proj_bias", "experts", number, 2 * width))
        tensors.append(_tensor("experts.down_proj_bias", "experts", number, hidden))
    shared = settings[mixture.shared_width] if mixture.shared_width else 0
    if mixture.shared:
        shared = (settings.get(mixture.shared) or 0) * width
    if shared:
        tensors += _mlp(family, settings, "shared_expert", "shared", hidden, shared)
        tensors += [_tensor("shared_expert_gate", "shared", 1, hidden)] if mixture.shared_gate else []
    return LayerShapes(
        count=count,
        tensors=tuple(tensors),
        attention=attention,
        inner_width=shared,
        expert_width=width,
        experts=number,
        chosen_experts=settings[mixture.chosen],
    )


def _heads(family: Family, settings: dict[str, Any], window: int | None) -> tuple[AttentionShapes, list[TensorShape]]:
    hidden, heads = settings["hidden_size"], settings["num_attention_heads"]
    key_heads = settings.get("num_key_value_heads") or heads
    size = settings.get("head_dim") or hidden // heads
    queries, keys = heads * size, key_heads * size
    tensors = [
        _tensor("q_proj", "attention", queries, hidden),
        _tensor("k_proj", "attention", keys, hidden),
        _tensor("v_proj", "attention", keys, hidden),
        _tensor("o_proj", "attention", hidden, queries),
    ]
    if _is_set(family.query_bias, settings):
        tensors += [
            _tensor(f"{name}_proj.bias", "attention", width)
            for name, width in zip("qkv", (queries, keys, keys), strict=True)
        ]
    if _is_set(family.output_bias, settings):
        tensors.append(_tensor("o_proj.bias", "attention", hidden))
    if family.head_norms != "none" and (family.head_norms_key is None or settings.get(family.head_norms_key)):
        widths = (size, size) if family.head_norms == "head" else (queries, keys)
        tensors += [_tensor(f"{name}_norm", "norm", width) for name, width in zip("qk", widths, strict=True)]
    if family.sinks:
        tensors.append(_tensor("sinks", "attention", heads))
    attention = AttentionShapes(
        query_width=queries,
        key_width=keys,
        value_width=keys,
        key_heads=key_heads,
        cached_width=2 * keys,
        latent=False,
        window=window,
    )
    return attention, tensors


def _latent(family: Family, settings: dict[str, Any], window: int | None) -> tuple[AttentionShapes, list[TensorShape]]:
    """Multi-head latent attention (DeepSeek-V2): keys and values are made from a latent of `kv_lora_rank` values."""
    hidden, heads = settings["hidden_size"], settings["num_attention_heads"]
    latent, rotary = settings["kv_lora_rank"], settings["qk_rope_head_dim"]
    plain, value = settings["qk_nope_head_dim"], settings["v_head_dim"]
    queries, rank = heads * (plain + rotary), settings.get("q_lora_rank")
    biased = _is_set(family.query_bias, settings)
    if rank:
        tensors = [
            _tensor("q_a_proj", "attention", rank, hidden),
            _tensor("q_a_layernorm", "norm", rank),
            _tensor("q_b_proj", "attention", queries, rank),
        ]
        tensors += [_tensor("q_a_proj.bias", "attention", rank)] if biased else []
    else:
        tensors = [_tensor("q_proj", "attention", queries, hidden)]
    tensors += [
        _tensor("kv_a_proj_with_mqa", "attention", latent + rotary, hidden),
        _tensor("kv_a_layernorm", "norm", latent),
        _tensor("kv_b_proj", "attention", heads * (plain + value), latent),
        _tensor("o_proj", "attention", hidden, heads * value),
    ]
    tensors += [_tensor("kv_a_proj_with_mqa.bias", "attention", latent + rotary)] if biased else []
    tensors += [_tensor("o_proj.bias", "attention", hidden)] if _is_set(family.output_bias, settings) else []
    attention = AttentionShapes(
        query_width=queries,
        key_width=queries,
        value_width=heads * value,
        key_heads=heads,
        cached_width=latent + rotary,
        latent=True,
        window=window,
    )
    return attention, tensors


def _mlp(family: Family, settings: dict[str, Any], name: str, role: Role, hidden: int, width: int) -> list[TensorShape]:
    inner = ["gate_proj", "up_proj"] if family.matrices == 3 else ["up_proj"]
    tensors = [_tensor(f"{name}.{matrix}", role, width, hidden) for matrix in inner]
    tensors.append(_tensor(f"{name}.down_proj", role, hidden, width))
    if _is_set(family.inner_bias, settings):
        tensors += [_tensor(f"{name}.{matrix}.bias", role, width) for matrix in inner]
        tensors.append(_tensor(f"{name}.down_proj.bias", role, hidden))
    return tensors


def _layers_with_experts(family: Family, settings: dict[str, Any]) -> list[bool]:
    """[layers] True where a layer has experts."""
    count, mixture = settings["num_hidden_layers"], family.mixture
    if mixture is None:
        return [False] * count
    if kinds := settings.get("mlp_layer_types"):
        return [kind == "sparse" for kind in kinds[:count]]
    first = settings.get(mixture.first_dense, 0) if mixture.first_dense else 0
    period = settings.get(mixture.every) or 1 if mixture.every else 1
    dense = (settings.get(mixture.dense_layers) or []) if mixture.dense_layers else []
    return [layer >= first and layer not in dense and (layer + 1) % period == 0 for layer in range(count)]


def _experts(mixture: Mixture, settings: dict[str, Any]) -> int:
    """Routed experts of a layer. transformers writes one number under another name than some published configs."""
    names = (mixture.experts, "num_experts", "num_local_experts", "n_routed_experts")
    return next((settings[name] for name in names if settings.get(name)), 0) or settings[mixture.experts]


def _windows(family: Family, settings: dict[str, Any]) -> list[int | None]:
    """[layers] tokens that a token of the layer attends to; None: all earlier ones."""
    count, window = settings["num_hidden_layers"], settings.get("sliding_window")
    if kinds := settings.get("layer_types"):
        return [window if kind == "sliding_attention" else None for kind in kinds[:count]]
    return [window if family.window_key else None] * count


def _is_set(flag: Flag, settings: dict[str, Any]) -> bool:
    if isinstance(flag, bool):
        return flag
    value = settings.get(flag[0])
    return flag[1] if value is None else bool(value)


def _tensor(name: str, role: Role, *shape: int) -> TensorShape:
    return TensorShape(name=name, role=role, shape=shape)
