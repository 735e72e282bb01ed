"""Where the value of a secret comes from, and that a run without one of its secrets does not start."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from rlframe.config import environment
from rlframe.config.compose import load, save
from rlframe.errors import ConfigError
from rlframe.record.secrets import secret

NAME = "RLFRAME_TEST_SECRET"


@pytest.fixture(autouse=True)
def no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(NAME, "")  # set and deleted, so that it is gone after the test, too
    monkeypatch.delenv(NAME)
    monkeypatch.setenv("RLFRAME_SECRETS", str(tmp_path / "mounted"))


def test_a_variable_comes_before_its_file_and_the_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert secret(NAME) is None
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / NAME).write_text("from the folder\n")
    assert secret(NAME) == "from the folder"
    (tmp_path / "file").write_text("from the file")
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "file"))
    assert secret(NAME) == "from the file"
    monkeypatch.setenv(NAME, "from the variable")
    assert secret(NAME) == "from the variable"


def test_a_run_without_its_secret_is_refused_with_the_name() -> None:
    with pytest.raises(ConfigError, match=rf"^secrets\.1: {NAME} has no value on this machine; set it on the machines"):
        environment.provide(["PATH", NAME])


def test_a_secret_of_a_file_is_set_for_libraries_and_hidden_in_errors(tmp_path: Path) -> None:
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted" / NAME).write_text("sk-0123456789")
    environment.provide([NAME])
    assert os.environ[NAME] == "sk-0123456789"
    assert environment.hidden("the endpoint refuses sk-0123456789") == f"the endpoint refuses ${{oc.env:{NAME}}}"


def test_a_saved_config_holds_the_name_alone(
    composed: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(NAME, "sk-0123456789")
    save(load(composed(f"secrets=[{NAME}]")), tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert f"secrets:\n- {NAME}\n" in text and "sk-0" not in text
