"""Weights & Biases without a network."""

import os
import sys

import pytest

from rlframe.errors import ConfigError
from rlframe.record.config import TrackingConfig
from rlframe.record.wandb import WandbSink, check_key


def test_an_offline_run_needs_no_key_and_logs_in_its_directory(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="an optional extra")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    for _ in range(2):  # a run and its resumption
        sink = WandbSink(tmp_path / "run", {"algorithm": {"name": "grpo"}}, project="rlframe", mode="offline")
        sink.log(1, {"reward/mean": 0.5})
        sink.close()
    wandb_id = (tmp_path / "run" / "wandb_id").read_text()
    assert list((tmp_path / "run" / "wandb").glob(f"offline-run-*-{wandb_id}/run-{wandb_id}.wandb"))


def test_no_file_of_wandb_has_a_secret_of_config_or_command_line(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="an optional extra")
    monkeypatch.setattr(sys, "argv", ["rlframe train", "judge.base_url=https://me:s3cret@host"])
    config = {"judge": {"base_url": "https://me:s3cret@host", "api_key": "s3cret", "model": "seen"}}
    sink = WandbSink(tmp_path / "run", config, project="rlframe", mode="offline")
    sink.log(1, {"reward/mean": 0.5})
    sink.close()
    contents = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert any(b"seen" in content for content in contents)
    assert not any(b"s3cret" in content for content in contents)


def test_only_an_online_run_without_a_key_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="an optional extra")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no_netrc"))
    monkeypatch.setattr(sys, "stdin", open("/dev/null"))  # noqa: SIM115
    check_key(TrackingConfig(wandb=True, project="p", mode="offline"))
    check_key(TrackingConfig(wandb=False, project="p", mode="online"))
    with pytest.raises(ConfigError, match=r"tracking.mode: online finds no key of W&B; set WANDB_API_KEY"):
        check_key(TrackingConfig(wandb=True, project="p", mode="online"))
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    check_key(TrackingConfig(wandb=True, project="p", mode="online"))
    assert "WANDB_SERVICE" not in os.environ  # else a run that this process starts would look for a service
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(ConfigError, match=r"no key of W&B \(.*\); set WANDB_API_KEY"):
        check_key(TrackingConfig(wandb=True, project="p", mode="online"))
