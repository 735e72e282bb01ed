"""Smaller students, against transformers' model with the same layers taken out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlframe.errors import ConfigError
from rlframe.model.drop_layers import drop_layers
from tests.tiny.models import byte_tokenizer, make_preference_model

SIZES: dict[str, Any] = {
    "vocab_size": 261,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
}
MIXTURE: dict[str, Any] = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}


def made(kind: str, folder: Path, *, shard: str = "50GB", **settings: Any) -> Path:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES | settings))
    model.save_pretrained(folder, max_shard_size=shard)
    byte_tokenizer().save_pretrained(folder)
    return folder


def assert_student(folder: Path, out: Path, keep: list[int]) -> Any:
    """The student computes what the teacher computes without the other layers -> its config."""
    teacher: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    teacher.model.layers = torch.nn.ModuleList([teacher.model.layers[layer] for layer in keep])
    for number, layer in enumerate(teacher.model.layers):
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    student: Any = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    if getattr(student.config, "layer_types", None):
        teacher.config.layer_types = student.config.layer_types
    teacher.config.num_hidden_layers = len(keep)
    tokens = torch.randint(0, 261, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, logits = (model(tokens, use_cache=False).logits for model in (teacher, student))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    return student.config


def test_a_tied_llama_of_four_layers_keeps_three(tmp_path: Path) -> None:
    folder = made("llama", tmp_path / "teacher", shard="30KB", num_hidden_layers=4, tie_word_embeddings=True)
    assert drop_layers(folder, [0, 1, 3], tmp_path / "out") == (4, 3)
    config = assert_student(folder, tmp_path / "out", [0, 1, 3])
    assert (config.num_hidden_layers, config.tie_word_embeddings) == (3, True)
    assert (tmp_path / "out" / "model.safetensors.index.json").is_file()
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == (folder / "chat_template.jinja").read_text()


def test_kinds_of_layers_follow_their_layers(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]
    folder = made(
        "qwen3", tmp_path / "teacher", num_hidden_layers=4, layer_types=kinds, sliding_window=4, use_sliding_window=True
    )
    drop_layers(folder, [0, 2, 3], tmp_path / "out")
    config = assert_student(folder, tmp_path / "out", [0, 2, 3])
    assert config.layer_types == ["sliding_attention", "full_attention", "sliding_attention"]


def test_a_mixture_keeps_its_dense_layers_dense(tmp_path: Path) -> None:
    folder = made(
        "qwen3_moe", tmp_path / "teacher", num_hidden_layers=4, mlp_only_layers=[0, 3], num_experts=4, **MIXTURE
    )
    drop_layers(folder, [0, 2, 3], tmp_path / "out")
    assert assert_student(folder, tmp_path / "out", [0, 2, 3]).mlp_only_layers == [0, 2]


def test_the_first_dense_layers_are_counted_anew(tmp_path: Path) -> None:
    latent = {
        "head_dim": 8,
        "q_lora_rank": 8,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 16,
    }
    folder = made(
        "deepseek_v3",
        tmp_path / "teacher",
        num_hidden_layers=5,
        first_k_dense_replace=2,
        n_routed_experts=4,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        **MIXTURE | latent,
    )
    drop_layers(folder, [1, 2, 4], tmp_path / "out")
    assert assert_student(folder, tmp_path / "out", [1, 2, 4]).first_k_dense_replace == 1


def test_a_period_that_the_config_cannot_say_is_refused(tmp_path: Path) -> None:
    folder = made(
        "qwen3_moe", tmp_path / "teacher", num_hidden_layers=4, decoder_sparse_step=2, num_experts=4, **MIXTURE
    )
    with pytest.raises(ConfigError, match=r"keep_layers: "):
        drop_layers(folder, [0, 2, 3], tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))
    drop_layers(folder, [2, 3], tmp_path / "out")  # a whole period
    assert_student(folder, tmp_path / "out", [2, 3])


def test_a_reward_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a sequence classifier; shrink a language model"):
        drop_layers(make_preference_model(tmp_path / "reward"), [0], tmp_path / "out")


@pytest.mark.parametrize("keep", [[], [0, 4], [-1, 0], [1, 0], [0, 0]])
def test_layers_must_exist_and_rise(tmp_path: Path, keep: list[int]) -> None:
    folder = made("llama", tmp_path / "teacher", num_hidden_layers=4)
    with pytest.raises(ConfigError, match="must be rising numbers from 0 to 3"):
        drop_layers(folder, keep, tmp_path / "out")
