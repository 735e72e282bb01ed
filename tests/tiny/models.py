"""Random models of a few kilobytes, with a tokenizer, as Hugging Face folders."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from pathlib import Path
from typing import Any

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_llama(folder: Path, *, tie_word_embeddings: bool, seed: int = 0) -> Path:
    """A Llama in shapes that vLLM's CPU kernels take: 2 layers, width 64, 2 heads of 32 with one key-value head."""
    from transformers import LlamaForCausalLM

    return _save_model(_random(LlamaForCausalLM, _llama(tie_word_embeddings=tie_word_embeddings), seed), folder)


def make_preference_model(folder: Path, *, num_labels: int = 1) -> Path:
    """The Llama of `make_llama` with a random head that scores a sequence at its last token."""
    from transformers import LlamaForSequenceClassification

    return _save(LlamaForSequenceClassification, _llama(num_labels=num_labels), folder)


def _llama(**settings: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(intermediate_size=128, num_key_value_heads=1, head_dim=32, **_common(), **settings)


def make_qwen3_moe(folder: Path) -> Path:
    """A Qwen3-MoE of 2 layers with 8 experts; a softmax chooses 2 experts for each token."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        intermediate_size=128,
        moe_intermediate_size=32,
        num_experts=8,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        num_key_value_heads=1,
        head_dim=32,
        tie_word_embeddings=False,
        **_common(),
    )
    return _save(Qwen3MoeForCausalLM, config, folder)


def make_lfm2(folder: Path) -> Path:
    """An LFM2: a short convolution, which knows no boundaries of packed sequences, then attention."""
    from transformers import Lfm2Config, Lfm2ForCausalLM

    layers = ["conv", "full_attention"]
    config = Lfm2Config(intermediate_size=128, num_key_value_heads=1, layer_types=layers, **_common())
    return _save(Lfm2ForCausalLM, config, folder)


def make_deepseek_v3(folder: Path) -> Path:
    """A DeepSeek-V3: a dense layer, then a layer with a shared expert and 8 routed experts in 2 groups.

    Sigmoid and bias choose the experts. Latent attention has the only sizes that vLLM's CPU kernels take.
    """
    import torch
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    config = DeepseekV3Config(
        intermediate_size=128,
        moe_intermediate_size=32,
        first_k_dense_replace=1,
        n_routed_experts=8,
        n_shared_experts=1,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        routed_scaling_factor=2.5,
        num_key_value_heads=2,
        q_lora_rank=32,
        kv_lora_rank=512,
        qk_rope_head_dim=64,
        qk_nope_head_dim=128,
        v_head_dim=128,
        num_nextn_predict_layers=0,
        tie_word_embeddings=False,
        topk_method="noaux_tc",  # vLLM reads these two; transformers knows no alternative
        scoring_func="sigmoid",
        **_common(),
    )
    model = _random(DeepseekV3ForCausalLM, config)
    with torch.no_grad():
        model.model.layers[1].mlp.gate.e_score_correction_bias.copy_(torch.linspace(-0.2, 0.2, 8))
    return _save_model(model, folder)


def make_fp8(source: Path, folder: Path, block: tuple[int, int]) -> Path:
    """The model at `source` with its projections in FP8, a scale for each block, as DeepSeek-V3 is published."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, folder)
    tensors = {}
    for name, tensor in load_file(source / "model.safetensors").items():
        if "_proj" not in name:
            tensors[name] = tensor
            continue
        scales = torch.empty([math.ceil(size / part) for size, part in zip(tensor.shape, block, strict=True)])
        values = torch.empty_like(tensor, dtype=torch.float8_e4m3fn)
        for row, column in itertools.product(*map(range, scales.shape)):
            part = (slice(row * block[0], (row + 1) * block[0]), slice(column * block[1], (column + 1) * block[1]))
            scales[row, column] = tensor[part].abs().max() / 448  # the largest float8
            values[part] = (tensor[part] / scales[row, column]).to(torch.float8_e4m3fn)
        tensors |= {name: values, f"{name}_scale_inv": scales}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((folder / "config.json").read_text())
    quantisation = {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": list(block),
    }
    (folder / "config.json").write_text(json.dumps(settings | {"quantization_config": quantisation}))
    return folder


def _common() -> dict[str, Any]:
    tokenizer = byte_tokenizer()
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.2,  # sharp enough that a wrong weight shows in every log-probability
    }


def _save(kind: Any, config: Any, folder: Path) -> Path:
    return _save_model(_random(kind, config), folder)


def _random(kind: Any, config: Any, seed: int = 0) -> Any:
    import torch

    torch.manual_seed(seed)
    return kind(config)


def _save_model(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def byte_tokenizer():
    """A tokenizer of bytes and a few special tokens, without training or downloads."""
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


def load_model(folder: Path, dtype: Any, attention_name: str, packing: Any) -> Any:
    """The whole model at a folder by transformers' own loading, ready for batches in `packing`."""
    from transformers import AutoConfig, AutoModelForCausalLM

    from rlframe.model.policy import attention, attention_of, without_noise

    attention.register()
    return AutoModelForCausalLM.from_pretrained(
        folder,
        config=without_noise(AutoConfig.from_pretrained(folder)),
        dtype=dtype,
        attn_implementation=attention_of(attention_name, packing),
    )
