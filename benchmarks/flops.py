"""Floating-point operations of a dense decoder's update, counted as published MFU figures count them.

A token costs 6 N for N parameters (2 forward, 4 backward), and 12 heads x head_dim a layer and token that it sees. Over
a sequence of S tokens, which see S / 2 on average, that makes 6 N + 6 layers heads head_dim S a token.
"""

from __future__ import annotations

from transformers import LlamaConfig, PretrainedConfig, Qwen3Config

QWEN3_0_6B = Qwen3Config(
    vocab_size=151_936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
    num_key_value_heads=8, head_dim=128, max_position_embeddings=40_960, tie_word_embeddings=True,
)  # fmt: skip
SMOLLM2 = LlamaConfig(
    vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
    num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True,
)  # fmt: skip


def ideal(config: PretrainedConfig, tokens: int, pairs: int) -> float:
    """`tokens` through every layer and the head; `pairs` of a token and one that it sees."""
    return 6 * (_in_layers(config) + _in_head(config)) * tokens + _attention(config, pairs)


def computed(config: PretrainedConfig, tokens: int, pairs: int, counted: int, kept: int = 0) -> float:
    """What our learner does: the head only for `counted` tokens, and once more in the backward pass for all but `kept`.

    `kept` are the last chunk's (`model/logprobs.py`); of a batch that fills a GPU they are few.
    """
    return 6 * _in_layers(config) * tokens + _in_head(config) * (8 * counted - 2 * kept) + _attention(config, pairs)


def drawn(config: PretrainedConfig, prompt_tokens: int, tokens: int) -> float:
    """What an engine does for `prompt_tokens` that it computes and `tokens` that it draws, attention left out."""
    return 2 * _in_layers(config) * (prompt_tokens + tokens) + 2 * _in_head(config) * tokens


def seen(shared: int, own: list[int]) -> int:
    """Pairs in sequences of `own` tokens that continue one copy of `shared` tokens."""
    return _causal(shared) + sum(shared * length + _causal(length) for length in own)


def _causal(length: int) -> int:
    return length * (length + 1) // 2


def _attention(config: PretrainedConfig, pairs: int) -> float:
    return 12 * config.num_hidden_layers * config.num_attention_heads * _head_dim(config) * pairs


def _in_layers(config: PretrainedConfig) -> int:
    """Matrices only: norms and biases are nothing beside them."""
    heads = 2 * config.num_attention_heads + 2 * config.num_key_value_heads
    return config.num_hidden_layers * config.hidden_size * (heads * _head_dim(config) + 3 * config.intermediate_size)


def _in_head(config: PretrainedConfig) -> int:
    return config.hidden_size * config.vocab_size


def _head_dim(config: PretrainedConfig) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
