"""Random models of 100 to 140 M parameters, as Hugging Face folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def make_model(folder: Path, kind: str) -> Path:
    """A random model in float32, made once."""
    if folder.is_dir():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config, Qwen3MoeConfig

    from tests.tiny.models import byte_tokenizer

    common: dict[str, Any] = {"max_position_embeddings": 2048, "bos_token_id": None, "eos_token_id": 1, "head_dim": 64}
    match kind:
        case "llama":  # SmolLM2-135M's shapes
            settings: Any = LlamaConfig(
                vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                num_key_value_heads=3, tie_word_embeddings=True, **common,
            )  # fmt: skip
        case "qwen3":
            settings = Qwen3Config(
                vocab_size=32_768, hidden_size=768, intermediate_size=2304, num_hidden_layers=12,
                num_attention_heads=12, num_key_value_heads=4, tie_word_embeddings=False, **common,
            )  # fmt: skip
        case _:
            settings = Qwen3MoeConfig(
                vocab_size=49_152, hidden_size=512, intermediate_size=1024, moe_intermediate_size=384,
                num_hidden_layers=8, num_experts=16, num_experts_per_tok=4, num_attention_heads=8,
                num_key_value_heads=4, norm_topk_prob=True, tie_word_embeddings=True, **common,
            )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(settings, dtype=torch.float32).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder
