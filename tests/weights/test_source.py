"""Our source of weights keeps vLLM's contract without importing it."""

from __future__ import annotations

import inspect

import torch
from torch import nn

from rlframe.weights.source import Zero3Source


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


def test_groups_are_what_vllm_makes_of_the_same_names() -> None:
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


def test_buffers_that_checkpoints_carry_travel_and_others_do_not() -> None:
    values = dict(Zero3Source(Wrapper(), "model."))
    assert values["layers.1.e_score_correction_bias"].tolist() == [0.5, -0.5]
    assert not [name for name in values if "scratch" in name]


def test_it_has_every_method_of_vllms_source_and_of_its_metadata() -> None:
    from vllm.distributed.weight_transfer.base import ParamMeta, WeightSource

    asked = [name for name, _ in inspect.getmembers(WeightSource, callable) if not name.startswith("_")]
    assert {"metadata", "groups", "iter_groups", "held_names"} == set(asked) & set(dir(Zero3Source)) == set(asked)
    ours = Zero3Source(Wrapper(), "model.").metadata()[0]
    assert ParamMeta(*ours) == ParamMeta("embed.weight", torch.float32, (8, 4))
