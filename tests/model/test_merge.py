"""Averages of models, against transformers' own loading of the same folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlframe.errors import ConfigError
from rlframe.model.merge import merge
from tests.tiny.models import make_deepseek_v3, make_llama, make_qwen3_moe


def changed(source: Path, folder: Path, *, shard: str = "50GB", dtype: torch.dtype = torch.float32) -> Path:
    """Another model of the same shape: every parameter of `source` plus noise, in shards."""
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def weights_of(folder: Path) -> dict[str, Tensor]:
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.state_dict()


def assert_average(out: Path, models: list[Path], weights: list[float]) -> None:
    states = [weights_of(folder) for folder in models]
    merged = weights_of(out)
    assert merged.keys() == states[0].keys()
    for name, value in merged.items():
        expected = sum(weight * state[name] for weight, state in zip(weights, states, strict=True))
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)


def test_an_average_of_tied_models_opens_in_transformers(tiny_model: Path, tmp_path: Path) -> None:
    long, out = changed(tiny_model, tmp_path / "long"), tmp_path / "out"
    assert merge({"short": tiny_model, "long": long}, [0.25, 0.75], out) == len(load_file(out / "model.safetensors"))
    assert_average(out, [tiny_model, long], [0.25, 0.75])
    assert "lm_head.weight" not in load_file(out / "model.safetensors")
    model: Any = AutoModelForCausalLM.from_pretrained(out)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in (out, tiny_model)]
    assert tokenizers[0].chat_template == tokenizers[1].chat_template
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()


@pytest.mark.parametrize("make", [make_qwen3_moe, make_deepseek_v3])
def test_mixtures_of_experts_merge_across_shards(make: Any, tmp_path: Path) -> None:
    whole, out = make(tmp_path / "whole"), tmp_path / "out"
    shards = changed(whole, tmp_path / "shards", shard="60KB")
    assert len(list(shards.glob("*.safetensors"))) > 2
    merge({"whole": whole, "shards": shards}, [0.5, 0.5], out)
    assert_average(out, [whole, shards], [0.5, 0.5])
    merge({"shards": shards, "whole": whole}, [0.5, 0.5], tmp_path / "sharded_out")
    assert sorted(path.name for path in (tmp_path / "sharded_out").glob("*.safetensors")) == sorted(
        path.name for path in shards.glob("*.safetensors")
    )
    assert_average(tmp_path / "sharded_out", [whole, shards], [0.5, 0.5])


def test_three_models_and_a_negative_weight(untied_model: Path, tmp_path: Path) -> None:
    one, two = changed(untied_model, tmp_path / "one"), tmp_path / "two"
    shutil.copytree(untied_model, two)
    merge({"a": untied_model, "b": one, "c": two}, [1.0, 0.5, -0.5], tmp_path / "out")
    assert_average(tmp_path / "out", [untied_model, one, two], [1.0, 0.5, -0.5])


def test_types_are_the_first_models_and_sums_are_float32(tiny_model: Path, tmp_path: Path) -> None:
    half = changed(tiny_model, tmp_path / "half", dtype=torch.bfloat16)
    merge({"half": half, "full": tiny_model}, [0.9, 0.1], tmp_path / "out")
    merged, first, second = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", half, tiny_model))
    for name, value in merged.items():
        expected = (0.9 * first[name].float() + 0.1 * second[name].float()).to(torch.bfloat16)
        assert value.dtype == torch.bfloat16
        assert torch.equal(value, expected)


def test_a_head_that_is_stored_although_tied_merges(tiny_model: Path, tmp_path: Path) -> None:
    stored = tmp_path / "stored"
    shutil.copytree(tiny_model, stored)
    tensors = load_file(stored / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, stored / "model.safetensors", metadata={"format": "pt"})
    for first, second in ((stored, tiny_model), (tiny_model, stored)):
        out = tmp_path / f"out_{first.name}"
        merge({"a": first, "b": second}, [0.5, 0.5], out)
        assert_average(out, [tiny_model, stored], [0.5, 0.5])


def refused(models: dict[str, Path], out: Path, weights: list[float] | None = None) -> str:
    with pytest.raises(ConfigError) as error:
        merge(models, weights or [0.5, 0.5], out)
    assert list(out.parent.glob(f"*{out.name}*")) == []  # not even half a folder
    return str(error.value)


def with_tensors(source: Path, folder: Path, change: Any) -> Path:
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_tensor_with_nan_is_named(tiny_model: Path, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    broken = with_tensors(tiny_model, tmp_path / "broken", lambda tensors: tensors[name][3].fill_(float("nan")))
    text = refused({"good": tiny_model, "broken": broken}, tmp_path / "out")
    assert text == f"{name} in broken has values that are no numbers (NaN or infinite)"


def test_an_average_beyond_its_type_is_named(tiny_model: Path, tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    great = changed(tiny_model, tmp_path / "great", dtype=torch.float16)
    with_tensors(great, tmp_path / "greater", lambda tensors: tensors[name][3].fill_(60_000))
    text = refused({"greater": tmp_path / "greater", "great": great}, tmp_path / "out", [2.0, -1.0])
    assert text == f"{name}: an average is greater than torch.float16 holds; take smaller weights"


def test_the_first_missing_or_different_tensor_is_named(tiny_model: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    less = with_tensors(tiny_model, tmp_path / "less", lambda tensors: tensors.pop(name))
    wide = with_tensors(tiny_model, tmp_path / "wide", lambda tensors: tensors.update({name: torch.zeros(3, 64)}))
    for models in ({"a": tiny_model, "b": less}, {"b": less, "a": tiny_model}):
        assert refused(models, tmp_path / "out").startswith(f"b has no tensor {name}, which a has")
    text = refused({"a": tiny_model, "b": wide}, tmp_path / "out")
    assert text.startswith(f"{name} is [128, 64] in a and [3, 64] in b")


def test_different_settings_are_refused_by_their_key(tiny_model: Path, untied_model: Path, tmp_path: Path) -> None:
    assert "tie_word_embeddings is True and False" in refused({"a": tiny_model, "b": untied_model}, tmp_path / "out")
    heads = make_llama(tmp_path / "heads", tie_word_embeddings=True)
    settings = json.loads((heads / "config.json").read_text())
    (heads / "config.json").write_text(json.dumps(settings | {"rms_norm_eps": 0.5, "max_position_embeddings": 64}))
    assert "rms_norm_eps is 1e-06 and 0.5" in refused({"a": tiny_model, "b": heads}, tmp_path / "out")


def test_the_first_token_that_differs_is_named(tiny_model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model, other)
    text = (other / "tokenizer.json").read_text().replace("<|assistant|>", "<|helper|>")
    (other / "tokenizer.json").write_text(text)
    settings = (other / "tokenizer_config.json").read_text().replace("<|assistant|>", "<|helper|>")
    (other / "tokenizer_config.json").write_text(settings)
    text = refused({"a": tiny_model, "b": other}, tmp_path / "out")
    assert "token 260 is '<|assistant|>' and '<|helper|>'" in text


@pytest.mark.parametrize("weights", [[0.5], [0.5, 0.6], [float("nan"), 0.5]])
def test_weights_must_be_one_a_model_of_sum_one(tiny_model: Path, tmp_path: Path, weights: list[float]) -> None:
    text = refused({"a": tiny_model, "b": tiny_model}, tmp_path / "out", weights)
    assert "must be a number for each of a, b, of sum 1" in text


def test_a_model_alone_has_no_average(tiny_model: Path, tmp_path: Path) -> None:
    assert "two models or more" in refused({"a": tiny_model}, tmp_path / "out", [1.0])
