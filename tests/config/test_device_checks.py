"""Rules on what the run's machines can do: sizes of engines."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from rlframe.config.compose import load
from rlframe.errors import ConfigError

Composed = Callable[..., DictConfig]


@pytest.mark.parametrize(
    "override, workers",
    [
        ("gpus: 0", 1),
        ("gpus: 4", 4),
        ("gpus: 8, pipeline_parallel: 2", 8),
        ("gpus: 16, tensor_parallel: 4, data_parallel: 4", 16),
        ("gpus: 0, tensor_parallel: 2", 2),
    ],
)
def test_an_engine_has_a_worker_for_each_of_its_gpus(composed: Composed, override: str, workers: int) -> None:
    assert load(composed(f"rollout={{{override}}}")).rollout.workers == workers


@pytest.mark.parametrize(
    "override, message",
    [
        (
            "rollout={gpus: 8, tensor_parallel: 2, data_parallel: 2}",
            "rollout.gpus: an engine of tensor_parallel=2 x pipeline_parallel=1 x data_parallel=2 = 4 workers uses as "
            "many GPUs, not 8; set rollout.gpus=4, or change a factor",
        ),
        (
            "rollout.expert_parallel=true",
            "rollout.expert_parallel: vLLM's kernels for CPUs compute all experts of a layer, and rollout.gpus=0",
        ),
        ("rollout.executor=ray", "rollout.executor: vLLM's Ray executor has no CPU workers, and rollout.gpus=0"),
    ],
)
def test_an_engine_that_no_machine_can_run_is_refused(composed: Composed, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        load(composed(override))
