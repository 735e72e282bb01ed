"""`shrunk`: a model's config with few layers, heads, experts and tokens, for a test that takes seconds.

Everything that decides how layers treat sequences stays: the kinds of layers, sizes of a head, rotary tables, scales,
caps. Names of keys are those of transformers' configs; a key that this file does not know stays as it is.
"""

from __future__ import annotations

import copy
import re
from typing import Any, TypeGuard

VOCABULARY = 128
HEADS = 4
EXPERTS = 8
LAYERS = 8  # at most, unless more are needed to have one of each kind
LIMIT = 8  # tokens of a window, or of another length that changes what a layer computes, which the run exceeds

LAYER_COUNTS = re.compile(r"^(num_hidden_layers|n_layers?|num_layers|(en|de)coder_layers)$")
HEAD_COUNTS = re.compile(r"^(num_attention_heads|n_heads?|num_heads|(en|de)coder_attention_heads)$")
KEY_HEAD_COUNTS = re.compile(r"^(num_key_value_heads|num_kv_heads)$")
LINEAR_HEAD_COUNTS = re.compile(r"^linear_num(_key|_value)?_heads$")
HIDDEN_SIZES = re.compile(r"^(hidden_size|n_embd|d_model|dim_model|embedding_size)$")
# Heads of a state-space layer -> the key of a head's size; their product is the hidden size times `expand`.
STATE_HEADS = {"mamba_n_heads": "mamba_d_head", "n_mamba_heads": "mamba_headdim", "mamba_num_heads": "mamba_head_dim"}
# Layers of one kind follow each other with a period that these keys name.
PERIODS = re.compile(r"interval|period|every|sparse_step|first_k|offset|pattern|num_dense_layers|freq")
LENGTH_LIMITS = re.compile(
    r"^(sliding_window(_size)?|attention_chunk_size|attention_window_size|window_size|local_attention|index_topk"
    r"|original_max_position_embeddings)$"
)
# Sizes that no rule between keys depends on -> their largest value.
BOUNDS = {
    r"intermediate_size|ffn_dim|ffn_hidden_size|^n_inner$|mlp_hidden": 64,
    r"num_experts$|n_routed_experts|num_local_experts": EXPERTS,
    r"^n_groups?$": 2,
    r"experts_per_tok|moe_topk|top_k_experts": 2,
    r"^topk_group$": 1,
    r"vocab_size": VOCABULARY,
    r"^(mamba_)?chunk_size$": 16,
    r"(^|_)d_state$|^(ssm_)?state_size$": 16,
}
CAPS = re.compile(r"softcapping$|soft_cap$")  # of scores and logits; so low that a test with small numbers exceeds it
CAP = 4.0


def shrunk(config: Any, longest: int, *, narrow: bool = True) -> Any:
    """A small copy of a config of transformers; of a model of text and images, with small configs of both.

    `longest`: tokens of the run's longest sequence. A window or rotary limit that such a sequence exceeds becomes
    LIMIT tokens, so that the test exceeds it too; any other stays, and no test reaches it. `narrow`: also fewer heads,
    and with them a smaller hidden size; some models' keys depend on each other in ways that this file does not know.
    """
    small = copy.deepcopy(config)
    for name in small.sub_configs:
        if (part := getattr(small, name, None)) is not None:
            setattr(small, name, shrunk(part, longest, narrow=narrow))
    keys = {key: value for key, value in vars(small).items() if key not in small.sub_configs}
    kept_layers = _kept_layers(keys)
    for key, value in (keys | (_few_heads(keys) if narrow else {})).items():
        smaller = _shrunk(key, value, _layers(keys), kept_layers, longest)
        if smaller != keys[key]:
            setattr(small, key, smaller)
    if "'dynamic'" in str(keys.get("rope_parameters")) and keys["max_position_embeddings"] < longest:
        small.max_position_embeddings = LIMIT  # NTK scaling changes the rotary tables of longer batches
    return small


def _shrunk(key: str, value: Any, layers: int, kept_layers: int, longest: int) -> Any:
    if isinstance(value, list | tuple) and len(value) == layers > 1:
        return [_shrunk(key, entry, 0, kept_layers, longest) for entry in value[:kept_layers]]
    if isinstance(value, dict):
        return _shrunk_settings(value, longest)
    if CAPS.search(key) and isinstance(value, float):
        return min(value, CAP)
    return _shrunk_count(key, value, kept_layers, longest) if _is_count(value) else value


def _shrunk_count(key: str, value: int, kept_layers: int, longest: int) -> int:
    if LAYER_COUNTS.match(key):
        return min(value, kept_layers)
    if key == "num_kv_shared_layers":  # the last layers read the keys of the last layers before them, one of each kind
        return min(value, kept_layers // 2)
    if LENGTH_LIMITS.match(key):
        return min(value, LIMIT) if value < longest else value
    for pattern, bound in BOUNDS.items():
        if re.search(pattern, key):
            return min(value, bound)
    return 0 if key.endswith("_token_id") and value >= VOCABULARY else value


def _kept_layers(keys: dict[str, Any]) -> int:
    """The number of first layers that has a layer of each kind."""
    layers = _layers(keys)
    lists = [value for value in keys.values() if isinstance(value, list | tuple) and len(value) == layers > 1]
    lists = [value for value in lists if list(value) != list(range(layers))]  # Llama 4's numbers of layers
    kinds = [str(kind) for kind in zip(*lists, strict=True)]
    of_each_kind = max((kinds.index(kind) + 1 for kind in set(kinds)), default=0)
    periods = [value for key, value in keys.items() if PERIODS.search(key) and _is_count(value)]
    one_period = max((period + 1 for period in periods if period <= LAYERS), default=0)
    return min(layers, max(2, of_each_kind, min(one_period, LAYERS)))


def _few_heads(keys: dict[str, Any]) -> dict[str, int]:
    """Fewer heads of the same size, with as many for each key head; the hidden size is their product where it was."""
    counts = {key: value for key, value in keys.items() if _is_count(value)}
    heads = next((value for key, value in counts.items() if HEAD_COUNTS.match(key)), 0)
    hidden = next((value for key, value in counts.items() if HIDDEN_SIZES.match(key)), 0)
    if not heads:
        return {key: min(value, 256) for key, value in counts.items() if key.endswith("hidden_size")}
    few = min(HEADS, heads)
    if hidden % heads == 0:
        small_hidden = hidden // heads * few
    elif "head_dim" in counts:
        small_hidden = counts["head_dim"] * few
    else:
        return {}
    linear = [value for key, value in counts.items() if LINEAR_HEAD_COUNTS.match(key)]
    smaller: dict[str, int] = {}
    for key, value in counts.items():
        if HEAD_COUNTS.match(key) and value == heads:
            smaller[key] = few
        elif KEY_HEAD_COUNTS.match(key):
            smaller[key] = max(1, few * value // heads)
        elif LINEAR_HEAD_COUNTS.match(key):
            smaller[key] = value // min(linear) * min(2, min(linear))
        elif HIDDEN_SIZES.match(key) and value == hidden:
            smaller[key] = small_hidden
        elif head_size := counts.get(STATE_HEADS.get(key, "")):
            smaller[key] = small_hidden * (counts.get("mamba_expand") or counts.get("expand") or 1) // head_size
            if "mamba_d_ssm" in counts:  # Falcon-H1
                smaller["mamba_d_ssm"] = smaller[key] * head_size
    return smaller


def _shrunk_settings(settings: dict[Any, Any], longest: int) -> dict[Any, Any]:
    """Rotary settings, or such settings for each kind of layer, with their limits shrunk."""
    shrunk_settings = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            value = _shrunk_settings(value, longest)
        elif LENGTH_LIMITS.match(str(key)) and _is_count(value) and value < longest:
            value = min(value, LIMIT)
        shrunk_settings[key] = value
    return shrunk_settings


def _layers(keys: dict[str, Any]) -> int:
    return next((value for key, value in keys.items() if LAYER_COUNTS.match(key) and _is_count(value)), 0)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
