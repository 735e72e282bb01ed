"""Rules on what the run's machines can do: sizes of engines."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from rlframe.config import device_checks
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
        (
            "rollout={routed_experts: true, gpus: 4, pipeline_parallel: 2}",
            "rollout.routed_experts: vLLM records them in engines of one stage, and rollout.pipeline_parallel=2; use",
        ),
        (
            "rollout={executor: ray, gpus: 4, data_parallel: 2}",
            "rollout.executor: ray divides one copy of the model over machines, and rollout.data_parallel=2; use",
        ),
        (
            "+reward.terms.helpful={name: model, weight: 1.0, path: x, dtype: float32, device: cuda, show: all, "
            "opened: false, max_tokens: 8, max_batch: 1, max_batch_tokens: 8, timeout_s: 1.0, mean: 0.0, std: 1.0}",
            "reward.terms.helpful.device: cuda, but the reward's worker asks for no GPU and so sees none; set",
        ),
        (
            "learner.attention=flash_attention_2",
            "learner.attention: flash_attention_2 runs on GPUs only, and learner.gpus=0; use rlframe_packed",
        ),
        (
            "learner={attention: flash_attention_2, gpus: 1}",
            "learner.attention: flash_attention_2 needs the package flash-attn, which is not installed; install "
            "rlframe with its extra: pip install --no-build-isolation '.[flash]', or use rlframe_packed",
        ),
    ],
)
def test_an_engine_that_no_machine_can_run_is_refused(composed: Composed, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        load(composed(override))


def test_the_build_of_vllm_for_gpus_has_no_engines_on_cpus(composed: Composed, monkeypatch: pytest.MonkeyPatch) -> None:
    builds = {"vllm": "0.32.0"}
    monkeypatch.setattr(device_checks.metadata, "distributions", lambda name: [builds[name]] if name in builds else [])
    with pytest.raises(ConfigError, match=r"^rollout.gpus: 0, but the installed vLLM is the build for GPUs"):
        load(composed())
    assert load(composed("rollout.gpus=1")).rollout.workers == 1
