"""Models by hub id, through huggingface_hub's own client, from a server on loopback."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from rlframe.config.compose import load
from rlframe.errors import ConfigError
from rlframe.model import hub
from rlframe.model.base_model import context_length, expert_parts, experts, locate, prepare
from tests.tiny.hub import COMMIT, TinyHub


@pytest.fixture
def server(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TinyHub]:
    """A hub with the model tiny/llama, which also has the weights in formats that nobody needs, and an empty cache."""
    folder = tmp_path / "llama"
    shutil.copytree(tiny_model, folder)
    for name in ("pytorch_model.bin", "llama.gguf", "consolidated.safetensors", "original/model.safetensors"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"never sent")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    hub.settings.cache_clear()
    with TinyHub({"tiny/llama": folder}).serving() as serving:
        use_endpoint(monkeypatch, serving.address)
        yield serving


def use_endpoint(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Sets the address that a process with HF_ENDPOINT uses from its start."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def no_server(server: TinyHub, monkeypatch: pytest.MonkeyPatch):
    """Ends the network: nothing listens at the address, and whatever this process remembers is forgotten."""

    def end() -> None:
        use_endpoint(monkeypatch, "http://user:secret@127.0.0.1:9")
        hub.settings.cache_clear()

    return end


@pytest.mark.parametrize(
    "path, model",
    [
        ("Qwen/Qwen3-0.6B", ("Qwen/Qwen3-0.6B", "main")),
        ("Qwen/Qwen3-0.6B@c1899de", ("Qwen/Qwen3-0.6B", "c1899de")),
        ("Qwen/Qwen3-0.6B@refs/pr/3", ("Qwen/Qwen3-0.6B", "refs/pr/3")),
        ("/models/Qwen3-0.6B", None),
        ("./models/Qwen3-0.6B", None),
        ("../models", None),
        ("~/models", None),
        ("runs/first/checkpoints", None),
        ("Qwen3-0.6B", None),
    ],
)
def test_owner_and_name_are_a_model_of_the_hub(path, model):
    parsed = hub.parse(path)
    assert (parsed and (parsed.name, parsed.revision)) == model


def test_settings_are_fetched_before_weights_and_only_what_is_needed(server, tiny_model):
    assert context_length("tiny/llama") == context_length(str(tiny_model))
    assert server.sent == ["tiny/llama/config.json"]
    folder = prepare("tiny/llama")
    assert folder.name == COMMIT
    assert {path.name for path in folder.iterdir()} == {path.name for path in tiny_model.iterdir()}
    assert (folder / "model.safetensors").read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    sent = len(server.sent)
    assert prepare("tiny/llama@main") == folder
    assert len(server.sent) == sent


def test_tensor_names_are_read_without_the_weights(server, qwen3_moe_model):
    server.models["tiny/moe"] = qwen3_moe_model
    assert experts("tiny/moe") == experts(str(qwen3_moe_model)) == 8
    assert expert_parts("tiny/moe") == expert_parts(str(qwen3_moe_model))
    assert server.sent == ["tiny/moe/config.json"]


def test_a_cached_model_needs_no_network(server, no_server, monkeypatch):
    folder = prepare("tiny/llama")
    no_server()
    assert prepare("tiny/llama") == folder
    hub.settings.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert prepare("tiny/llama") == folder


def test_half_a_model_in_the_cache_is_refused_without_network(server, monkeypatch):
    locate("tiny/llama")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)  # with a silent server, the client tries for 23 s
    with pytest.raises(ConfigError, match=r"tiny/llama \(revision main\) is not whole in the cache"):
        prepare("tiny/llama")


def test_without_network_the_error_names_both_readings_and_remedies(server, no_server, tmp_path):
    no_server()
    with pytest.raises(ConfigError) as refused:
        locate("tiny/llama")
    assert str(refused.value) == (
        f"tiny/llama: there is no folder {tmp_path}/tiny/llama, and the hub's model tiny/llama (revision main) is not "
        "whole in the cache, and the hub does not answer (ConnectError). Without network give a folder, or a model "
        "that is in the cache (HF_HOME), with HF_HUB_OFFLINE=1; HF_ENDPOINT names a mirror"
    )


def test_a_shard_that_is_missing_from_the_cache_is_named(server, tmp_path, monkeypatch):
    folder = tmp_path / "cache" / "models--tiny--big" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    weights = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    for name in ("config.json", "model-00001-of-00002.safetensors"):
        (folder / name).write_text("{}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match=r"not whole in the cache, model-00002-of-00002\.safetensors is missing"):
        prepare(f"tiny/big@{COMMIT}")


def test_a_run_keeps_the_commit_of_its_model(server, composed, model_folder):
    server.models["tiny/long"] = model_folder
    assert load(composed("model.path=tiny/long")).model.path == f"tiny/long@{COMMIT}"
    sent = len(server.sent)
    assert load(composed(f"model.path=tiny/long@{COMMIT}")).model.path == f"tiny/long@{COMMIT}"
    assert len(server.sent) == sent


def test_a_folder_comes_before_a_model_of_the_hub(server, model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "tiny" / "llama")
    assert locate("tiny/llama") == tmp_path / "tiny" / "llama"
    assert server.sent == []


def test_unknown_models_and_revisions_are_told_apart(server):
    with pytest.raises(ConfigError, match="the hub has no model tiny/lama, or the model is private: check the name"):
        locate("tiny/lama")
    with pytest.raises(ConfigError, match="the hub's model tiny/llama has no revision 'v2'"):
        locate("tiny/llama@v2")


def test_a_gated_model_names_the_token_s_variable(server):
    server.gated.add("tiny/llama")
    with pytest.raises(ConfigError, match="tiny/llama is gated: accept its conditions on its page, and set HF_TOKEN"):
        locate("tiny/llama")


def test_a_model_without_config_or_safetensors_is_refused(server, tmp_path):
    for name, file in (("tiny/adapter", "adapter_config.json"), ("tiny/pickled", "config.json")):
        server.models[name] = tmp_path / "hub" / name
        server.models[name].mkdir(parents=True)
        (server.models[name] / file).write_text(json.dumps({"max_position_embeddings": 8}))
    with pytest.raises(ConfigError, match=r"tiny/adapter has no config\.json"):
        locate("tiny/adapter")
    assert context_length("tiny/pickled") == 8
    with pytest.raises(ConfigError, match=r"tiny/pickled has no weights in \.safetensors files; convert it"):
        prepare("tiny/pickled")


def refused(tmp_path: Path, endpoint: str, *overrides: str) -> str:
    """Runs `rlframe train` with a config that it refuses -> its output."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "rlframe.cli", "train", f"run_dir={tmp_path}/run", *overrides]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and not (tmp_path / "run").exists()
    return done.stdout + done.stderr


def test_the_command_refuses_a_model_that_it_cannot_get(tmp_path):
    printed = refused(tmp_path, "http://127.0.0.1:9", "model.path=Qwen/Qwen3-0.6B")
    assert "Traceback" not in printed
    assert "model.path: Qwen/Qwen3-0.6B: there is no folder" in printed
    assert "HF_HUB_OFFLINE=1; HF_ENDPOINT names a mirror" in printed


def test_the_command_refuses_settings_before_weights_travel(server, tmp_path):
    printed = refused(tmp_path, server.address, "model.path=tiny/llama", "rollout.max_tokens=100000")
    assert "rollout.max_tokens: prompts.max_tokens=128 + rollout.max_tokens=100000 = 100128 tokens" in printed
    assert server.sent == ["tiny/llama/config.json"]
    assert server.address not in printed  # an address may hold a password, so requests are not logged
