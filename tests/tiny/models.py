"""Random models of a few kilobytes, with a tokenizer, as Hugging Face folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_llama(folder: Path, *, tie_word_embeddings: bool) -> Path:
    """2 layers, width 64, 2 heads of 32 that share one key-value head: shapes that vLLM's CPU kernels take."""
    from transformers import LlamaForCausalLM

    return save_llama(folder, LlamaForCausalLM, tie_word_embeddings=tie_word_embeddings)


def make_preference_model(folder: Path, *, num_labels: int = 1) -> Path:
    """The same Llama with a random head that scores a sequence at its last token."""
    from transformers import LlamaForSequenceClassification

    return save_llama(folder, LlamaForSequenceClassification, num_labels=num_labels)


def save_llama(folder: Path, model_class: Any, **settings: Any) -> Path:
    import torch
    from transformers import LlamaConfig

    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    model = model_class(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=512,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            initializer_range=0.2,  # sharp enough that a wrong weight shows in every log-probability
            **settings,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_tokenizer():
    """Bytes and a few special tokens: nothing to train and nothing to download."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    fast.add_special_tokens({"additional_special_tokens": ["<|system|>", "<|user|>", "<|assistant|>"]})
    fast.chat_template = CHAT_TEMPLATE
    return fast
