"""Architectures whose tensors follow from config.json by arithmetic: decoders with rotary attention, dense or mixed.

`FAMILIES` says where a family differs: biases, norms, kinds of MLP. `counting.py` computes by it. A test counts each
family's parameters against transformers' own model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# A yes or no by the family alone, or by a key of config.json, with the default of transformers where it is absent.
Flag = bool | tuple[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What is particular to an architecture."""

    query_bias: Flag = False  # of queries, keys and values
    output_bias: Flag = False
    head_norms: Literal["none", "head", "width"] = "none"  # of queries and keys: by head, or over all heads
    head_norms_key: str | None = None  # of config.json, which switches them on
    norms: int = 2  # of a layer
    norm_vectors: int = 1  # 2: scale and bias; 0: no parameters
    matrices: Literal[2, 3] = 3  # of an MLP: up and down, or also a gate
    inner_bias: Flag = False  # of the MLP
    tied: bool = False  # where config.json does not say it
    sinks: bool = False  # a score for each head
    mixture: Mixture | None = None
    latent: bool = False  # MLA
    window_key: str | None = None  # of a window for all layers without `layer_types`


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """The keys of a mixture of experts."""

    experts: str = "num_experts"
    chosen: str = "num_experts_per_tok"
    width: str = "moe_intermediate_size"
    shared: str | None = None  # number of shared experts of the same width
    shared_width: str | None = None  # width of the shared expert
    shared_gate: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    first_dense: str | None = None  # number of first layers without experts
    every: str | None = None  # period of layers with experts
    dense_layers: str | None = None  # numbers of layers without experts


ATTENTION_BIAS = ("attention_bias", False)
MLP_BIAS = ("mlp_bias", False)
LLAMA = Family(query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, inner_bias=MLP_BIAS)
DEEPSEEK = Mixture(experts="n_routed_experts", shared="n_shared_experts", first_dense="first_k_dense_replace")

FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "mistral": Family(window_key="sliding_window"),
    "ministral": Family(window_key="sliding_window"),
    "ministral3": Family(window_key="sliding_window"),
    "granite": LLAMA,
    "smollm3": LLAMA,
    "cwm": LLAMA,
    "helium": Family(query_bias=ATTENTION_BIAS),
    "olmo": Family(query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, norm_vectors=0),
    "olmo2": Family(query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, head_norms="width"),
    "olmo3": Family(query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, head_norms="width"),
    "qwen2": Family(query_bias=True),
    "qwen3": Family(query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, head_norms="head"),
    "seed_oss": Family(
        query_bias=("attention_bias", True), output_bias=("attention_out_bias", False), inner_bias=MLP_BIAS
    ),
    "gemma": Family(query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, tied=True),
    "gemma2": Family(query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, norms=4, tied=True),
    "gemma3_text": Family(query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, norms=4, tied=True, head_norms="head"),
    "phi3": Family(window_key="sliding_window"),
    "arcee": Family(query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, inner_bias=MLP_BIAS, matrices=2),
    "starcoder2": Family(
        query_bias=("use_bias", True),
        output_bias=("use_bias", True),
        inner_bias=("use_bias", True),
        matrices=2,
        norm_vectors=2,
        tied=True,
        window_key="sliding_window",
    ),
    "glm": Family(query_bias=("attention_bias", False)),
    "glm4": Family(query_bias=("attention_bias", False), norms=4),
    "cohere": Family(query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, norms=1, tied=True),
    "cohere2": Family(query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, norms=1, tied=True),
    "exaone4": Family(head_norms="head"),
    "hunyuan_v1_dense": Family(query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, head_norms="head"),
    "mixtral": Family(mixture=Mixture(experts="num_local_experts", width="intermediate_size")),
    "qwen2_moe": Family(
        query_bias=("qkv_bias", True),
        mixture=Mixture(
            shared_width="shared_expert_intermediate_size",
            shared_gate=True,
            every="decoder_sparse_step",
            dense_layers="mlp_only_layers",
        ),
    ),
    "qwen3_moe": Family(
        query_bias=ATTENTION_BIAS,
        output_bias=ATTENTION_BIAS,
        head_norms="head",
        mixture=Mixture(every="decoder_sparse_step", dense_layers="mlp_only_layers"),
    ),
    "olmoe": Family(
        query_bias=ATTENTION_BIAS,
        output_bias=ATTENTION_BIAS,
        head_norms="width",
        mixture=Mixture(width="intermediate_size"),
    ),
    "gpt_oss": Family(
        query_bias=("attention_bias", True),
        output_bias=("attention_bias", True),
        sinks=True,
        mixture=Mixture(experts="num_local_experts", width="intermediate_size", router_bias=True, expert_bias=True),
    ),
    "deepseek_v2": Family(latent=True, query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, mixture=DEEPSEEK),
    "deepseek_v3": Family(latent=True, query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, mixture=DEEPSEEK),
    "glm4_moe": Family(query_bias=ATTENTION_BIAS, head_norms="head", head_norms_key="use_qk_norm", mixture=DEEPSEEK),
    "glm4_moe_lite": Family(latent=True, query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, mixture=DEEPSEEK),
    "dots1": Family(query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, head_norms="head", mixture=DEEPSEEK),
    "minimax_m2": Family(head_norms="width", mixture=Mixture(experts="num_local_experts", width="intermediate_size")),
    "youtu": Family(latent=True, query_bias=ATTENTION_BIAS, output_bias=ATTENTION_BIAS, tied=True),
}
