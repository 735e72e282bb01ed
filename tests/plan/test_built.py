"""Shapes of architectures that only transformers knows."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Lfm2Config, Qwen3MoeConfig

from rlframe.plan.built import built_shapes
from tests.plan.conftest import shapes_of


@pytest.mark.parametrize(
    "config",
    [
        Lfm2Config(hidden_size=64, num_hidden_layers=4, vocab_size=128, layer_types=["conv", "full_attention"] * 2),
        Qwen3MoeConfig(hidden_size=64, num_hidden_layers=2, vocab_size=128, num_experts=8, num_experts_per_tok=2),
    ],
)
def test_every_parameter_is_counted_once(config, tmp_path):
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path))
    shapes = built_shapes(tmp_path, json.loads((tmp_path / "config.json").read_text()))
    assert shapes.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shapes.layer_count == config.num_hidden_layers and shapes.counted_by == "transformers"


def test_a_mixture_is_seen_as_by_its_family(tmp_path):
    config = Qwen3MoeConfig(hidden_size=64, num_hidden_layers=2, vocab_size=128, num_experts=8, num_experts_per_tok=2)
    config.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    built, counted = built_shapes(tmp_path, settings), shapes_of(settings)
    assert built.active_parameters == counted.active_parameters
    [mixed], [expected] = built.layers, counted.layers
    assert (mixed.experts, mixed.chosen_experts, mixed.expert_width) == (8, 2, expected.expert_width)
    assert mixed.attention.cached_width == expected.attention.cached_width
