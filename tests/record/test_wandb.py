"""Weights & Biases without a network."""

import pytest

from rlframe.record.wandb import WandbSink


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
