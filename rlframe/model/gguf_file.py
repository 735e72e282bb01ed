"""The header of a GGUF file: the sizes of its model, under the keys of a config.json."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

# Key of a config.json -> key of a GGUF file, behind the name of the architecture.
KEYS = {
    "max_position_embeddings": "context_length",
    "num_hidden_layers": "block_count",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "vocab_size": "vocab_size",
}
EMBEDDING, HEAD = "token_embd.weight", "output.weight"  # names of tensors


@cache
def settings(file: Path) -> dict[str, Any]:
    """`model_type` and sizes. Reads the whole header, whose vocabulary takes seconds."""
    from gguf import GGUFReader

    reader = GGUFReader(file)
    architecture = reader.fields["general.architecture"].contents()
    fields = {key: reader.fields.get(f"{architecture}.{name}") for key, name in KEYS.items()}
    found = {key: field.contents() for key, field in fields.items() if field is not None}
    tensors = {tensor.name: tensor.shape for tensor in reader.tensors}
    if EMBEDDING in tensors:
        found.setdefault("vocab_size", int(tensors[EMBEDDING][-1]))
    return {"model_type": architecture, "tie_word_embeddings": HEAD not in tensors, **found}
