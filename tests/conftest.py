"""What tests of several modules need: a model's folder, and Hydra's composition of `conf/`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from rlframe.cli import conf_dir


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

    def make(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return compose("train", [f"model.path={model_folder}", *overrides])

    return make
