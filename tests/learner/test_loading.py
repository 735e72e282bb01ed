"""Ranks that read their own shards have together the model that transformers loads, and none has it whole meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from transformers import AutoModelForCausalLM

from benchmarks.model_loading import make_model, measure
from rlframe.learner.rank import LearnerRank
from rlframe.model.policy import PREFIX
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny.learner import state


def buffers(rank: LearnerRank) -> dict[str, torch.Tensor]:
    return {name.removeprefix(PREFIX): buffer for name, buffer in rank.engine.module.named_buffers()}


def shapes(rank: LearnerRank) -> tuple[int, int]:
    """Values that this rank has, and values of the model."""
    parameters: list[Any] = list(rank.engine.module.parameters())
    held = sum(parameter.ds_tensor.numel() + parameter.numel() for parameter in parameters)
    return held, sum(parameter.ds_numel for parameter in parameters)


@pytest.mark.parametrize(
    "folder, ranks, dtype",
    [
        ("tiny_model", 1, "float32"),
        ("tiny_model", 3, "bfloat16"),
        ("untied_model", 2, "bfloat16"),
        ("qwen3_moe_model", 3, "bfloat16"),
        ("deepseek_v3_model", 2, "bfloat16"),
    ],
)
def test_ranks_have_the_parameters_and_buffers_that_transformers_loads(
    folder: str, ranks: int, dtype: str, launch: Launch, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(folder)
    handles = launch(compose([*tiny_overrides(path), f"learner.dtype={dtype}"]).learner, path, ranks)
    loaded = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype))
    expected = {f"{kind} {name}": p.detach().float().numpy() for name, p in loaded.named_parameters()
                for kind in ("model", "master")}  # fmt: skip
    ours = state(handles)
    assert ours.keys() == expected.keys()
    assert [name for name in ours if not np.array_equal(ours[name], expected[name])] == []
    for of_rank in ray.get([handle.__ray_call__.remote(buffers) for handle in handles]):
        theirs = dict(loaded.named_buffers())
        assert {name: b.dtype for name, b in of_rank.items()} == {name: b.dtype for name, b in theirs.items()}
        assert [name for name in theirs if not torch.equal(of_rank[name], theirs[name])] == []
    held, whole = ray.get(handles[0].__ray_call__.remote(shapes))
    assert whole / ranks <= held < whole / ranks + len(ours)  # a shard's padding is less than a value a rank


@pytest.mark.long
def test_loading_and_export_need_memory_for_a_share_and_two_layers(tmp_path: Path) -> None:
    sizes = {"layers": 8, "hidden": 512, "intermediate": 256, "vocabulary": 30_000, "experts": 16}
    make_model(tmp_path, files=3, **sizes)
    for loading in measure(tmp_path, 2):
        assert loading.shard > 4 * loading.largest_layer > 50
        assert loading.shard <= loading.peak <= loading.shard + 2 * loading.largest_layer
        largest = max(loading.largest_layer, loading.embeddings)
        assert loading.export < loading.shard + largest  # of an equal share, up to a tensor
        assert loading.export <= loading.export_peak <= loading.export + 2 * largest
