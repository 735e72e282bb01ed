"""Our source of weights keeps vLLM's contract without importing vLLM."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from torch import nn

from rlframe.learner.source import Zero3Source
from rlframe.model.checkpoint_names import to_checkpoint


class Router(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 4))
        self.register_buffer("e_score_correction_bias", torch.tensor([0.5, -0.5]))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(8, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4), Router()])
        self.norm = nn.LayerNorm(4)


class Wrapper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Model()


def test_groups_equal_vllm_s_groups_of_the_same_names() -> None:
    from vllm.distributed.weight_transfer.base import layerwise_groups

    source = Zero3Source(Wrapper(), "model.")
    names = [meta.name for meta in source.metadata()]
    assert (
        source.groups()
        == layerwise_groups(names)
        == [
            ["embed.weight"],
            ["layers.0.weight", "layers.0.bias"],
            ["layers.1.weight", "layers.1.e_score_correction_bias"],
            ["norm.weight", "norm.bias"],
        ]
    )


def test_only_buffers_of_checkpoints_travel() -> None:
    values = dict(Zero3Source(Wrapper(), "model."))
    assert values["layers.1.e_score_correction_bias"].tolist() == [0.5, -0.5]
    assert not [name for name in values if "scratch" in name]


def test_the_source_has_every_method_of_vllm_s_source() -> None:
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

    methods = [name for name, _ in inspect.getmembers(WeightSource, callable) if not name.startswith("_")]
    assert {"metadata", "groups", "iter_groups", "held_names"} == set(methods) & set(dir(Zero3Source)) == set(methods)
    ours = Zero3Source(Wrapper(), "model.").metadata()[0]
    assert ParamMeta(*ours) == ParamMeta("embed.weight", torch.float32, (8, 4))


@pytest.mark.parametrize("kind", ["qwen3_moe", "afmoe"])  # whose own router.gate has the name of expert parallelism's
def test_fused_experts_get_the_names_and_values_that_transformers_saves(kind: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        kind,
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        moe_intermediate_size=4,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=4,
        num_experts=3,
        num_experts_per_tok=1,
    )
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    with torch.device("meta"):
        without_data = AutoModelForCausalLM.from_config(config)
    named = to_checkpoint(without_data, {name: tensor.detach() for name, tensor in model.named_parameters()})
    assert "model.layers.1.mlp.experts.2.gate_proj.weight" in named
    assert named.keys() == saved.keys()
    assert all(torch.equal(named[name], tensor) for name, tensor in saved.items())
