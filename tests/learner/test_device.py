"""The device of a rank: by `learner.gpus`, whatever the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlframe.learner.rank import LearnerRank
from tests.conftest import compose, tiny_overrides


@pytest.mark.parametrize("gpus, device", [(0, "cpu"), (1, "cuda")])
def test_a_rank_takes_the_device_of_its_config(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, gpus: int, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    learner = compose([*tiny_overrides(tiny_model), f"learner.gpus={gpus}"]).learner
    assert LearnerRank("learner-0", learner, tiny_model, 1.0, 1, "shared").device.type == device
