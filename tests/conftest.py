"""What every room's tests share: tiny random models and configs made from the real YAML."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import setuptools  # noqa: F401 - torch's compiler for CPUs wants it, and fails where distutils was imported before it
from omegaconf import DictConfig

from rlframe.config.run import RunConfig

TESTS = Path(__file__).parent
TINY = TESTS / "tiny"
BREVITY = f"{TESTS / 'tiny' / 'rewards.py'}:Brevity"
# `make test` runs tests in two processes. The tests of a folder or file with the same name here run one after another,
# and those of every other file together. Tests of actors take the silence of seconds for a fault, so two of them at the
# same time would disturb each other.
GROUPS = {
    "cli/test_draw.py": "runs",
    "cluster/test_jobs.py": "runs",
    "cluster/test_loopback.py": "runs",
    "cluster/test_nodes.py": "runs",
    "test_chaos.py": "runs",
    "test_launch.py": "runs",
    "train/": "runs",
    "actors/": "actors",
    "cluster/": "actors",
    "experience/": "actors",
    "learner/": "learner",  # its processes of ranks serve all of its tests
    "kubernetes/": "actors",
    "reward/test_pool.py": "actors",
    "reward/test_restarts.py": "actors",
    "reward/test_silence.py": "actors",
    "rollout/": "actors",
    "weights/": "actors",
}

# By itself Ray gives its workers the least priority, and beside other tests they would starve.
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Gives each group of tests to one of the two processes."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0].removeprefix("tests/")
            return next((group for start, group in GROUPS.items() if file.startswith(start)), file)

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 2 layers with tied embeddings and a byte tokenizer, as a Hugging Face folder."""
    from tests.tiny.models import make_llama

    return make_llama(tmp_path_factory.mktemp("tiny_llama"), tie_word_embeddings=True)


@pytest.fixture(scope="session")
def untied_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny.models import make_llama

    return make_llama(tmp_path_factory.mktemp("untied_llama"), tie_word_embeddings=False)


@pytest.fixture(scope="session")
def qwen3_moe_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny.models import make_qwen3_moe

    return make_qwen3_moe(tmp_path_factory.mktemp("qwen3_moe"))


@pytest.fixture(scope="session")
def deepseek_v3_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.tiny.models import make_deepseek_v3

    return make_deepseek_v3(tmp_path_factory.mktemp("deepseek_v3"))


def tiny_overrides(model: Path) -> list[str]:
    """What turns the default config into a job of seconds: 2 prompts x 4 completions of at most 16 tokens."""
    return [
        f"model.path={model}",
        "prompts_per_step=2",
        "rollout.group_size=4",
        "rollout.max_tokens=16",
        "rollout.max_concurrent=16",
        "rollout.kv_cache_gib=1",
        "rollout.dtype=float32",
        "rollout.cpus=1",
        "learner.ranks=2",
        "learner.dtype=float32",
        "learner.cpus=1",
        "learner.lr=1e-3",
        "learner.micro_batch_tokens=512",
        "prompts.train.size=16",
        "prompts.heldout.size=2",
        "evaluate.samples=2",
        "cluster.object_store_gib=0.25",
        "cluster.start_timeout_s=300",
        "cluster.stall_timeout_s=120",
        # A random model is never right; shorter is something that it can learn, and a reward by import path.
        f"+reward.terms.brevity={{name: '{BREVITY}', weight: 1.0, target: 8}}",
    ]


@pytest.fixture
def tiny_run(tiny_model: Path, tmp_path: Path) -> RunConfig:
    return compose([*tiny_overrides(tiny_model), f"run_dir={tmp_path / 'run'}"])


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A Hugging Face folder as far as a config looks into it: a context of 4096 tokens."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 4096}))
    return folder


@pytest.fixture
def composed(model_folder: Path) -> Callable[..., DictConfig]:
    """`composed("steps=3")`: what `rlframe train model.path=... steps=3` hands to `config.load`."""
    return lambda *overrides: compose_unchecked([f"model.path={model_folder}", *overrides])


def compose(overrides: list[str]) -> RunConfig:
    """The checked config of a command line."""
    from rlframe.config.compose import load

    return load(compose_unchecked(overrides))


def compose_unchecked(overrides: list[str], config_name: str = "train") -> DictConfig:
    import hydra

    from rlframe.config.compose import conf_dir

    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose(config_name, overrides)
