"""Parameters by config.json against transformers' models without values, and against published figures."""

import json

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from rlframe.errors import ConfigError
from rlframe.plan.counting import model_shapes
from rlframe.plan.families import FAMILIES
from tests.plan.conftest import DEEPSEEK_V3, QWEN3_8B, TINY, shapes_of

# Keys without which transformers' own default of a config makes no model.
WHOLE = {
    "ministral": {"head_dim": 128},
    "hunyuan_v1_dense": {"head_dim": 128},
    "dots1": {"n_routed_experts": 64, "n_shared_experts": 2},
}
SMOLLM2_135M = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49_152, "tie_word_embeddings": True,
}  # fmt: skip
QWEN3_30B_A3B = {
    "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "moe_intermediate_size": 768,
    "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 128,
    "num_experts_per_tok": 8, "decoder_sparse_step": 1, "mlp_only_layers": [], "vocab_size": 151_936,
    "tie_word_embeddings": False,
}  # fmt: skip


@pytest.mark.parametrize("kind", FAMILIES)
def test_parameters_equal_those_of_transformers_own_model(kind):
    config = CONFIG_MAPPING[kind](**WHOLE.get(kind, {}))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = shapes_of(json.loads(config.to_json_string()))
    assert shapes.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_published_figures_of_total_and_active_parameters():
    figures = [
        (SMOLLM2_135M, 0.1345, 0.1345),  # "135M"
        (QWEN3_8B, 8.19, 8.19),  # "8.2B"
        (QWEN3_30B_A3B, 30.53, 3.35),  # "30.5B in total and 3.3B activated"
        (json.loads((DEEPSEEK_V3 / "config.json").read_text()), 671.03, 37.55),  # "671B with 37B activated"
    ]
    for settings, total, active in figures:
        shapes = shapes_of(settings)
        assert shapes.parameters / 1e9 == pytest.approx(total, rel=1e-3)
        assert shapes.active_parameters / 1e9 == pytest.approx(active, rel=2e-3)


def test_a_small_llama_is_counted_by_hand():
    # A layer: 8 x 8 queries and output, 2 x 4 x 8 keys and values, 3 x 16 x 8 in the MLP, 2 x 8 norms; 32 x 8, and 8.
    shapes = shapes_of(TINY)
    assert shapes.parameters == 2 * (64 + 64 + 64 + 384 + 16) + 256 + 8
    assert shapes.layer_count == 2 and shapes.tied and shapes.head_size == 256


def test_deepseek_v3_has_three_dense_layers_and_a_latent():
    shapes = shapes_of(json.loads((DEEPSEEK_V3 / "config.json").read_text()))
    dense, mixed = sorted(shapes.layers, key=lambda layer: layer.experts)
    assert (dense.count, mixed.count, mixed.experts, mixed.chosen_experts) == (3, 58, 256, 8)
    assert mixed.attention.latent and mixed.attention.cached_width == 512 + 64


def test_layers_with_a_window_are_of_a_kind_of_their_own():
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    shapes = shapes_of(TINY | {"num_hidden_layers": 6, "layer_types": kinds, "sliding_window": 128})
    assert sorted((layer.count, layer.attention.window) for layer in shapes.layers if layer.attention.window) == [
        (5, 128)
    ]


def test_an_unknown_architecture_has_no_family():
    assert model_shapes(TINY | {"model_type": "mamba2"}) is None


def test_a_missing_size_is_named():
    with pytest.raises(ConfigError, match=r"config\.json has no intermediate_size, which sizes of a llama need"):
        model_shapes({key: value for key, value in TINY.items() if key != "intermediate_size"})
