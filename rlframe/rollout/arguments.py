"""Arguments of an engine: rlframe's settings -> vLLM's `AsyncEngineArgs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.rollout import cpu, plugin

if TYPE_CHECKING:
    from rlframe.rollout.config import RolloutConfig

MIN_BATCHED_TOKENS = 8192  # of prompts in a step of the scheduler, so that no prompt waits for the next step


def engine_arguments(
    config: RolloutConfig, model_path: Path, *, max_model_len: int, backend: str, head_dtype: str
) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs`. On a CPU sets environment variables too, so call it before vLLM is imported.

    `max_model_len`: tokens of a prompt and a completion together; `backend`: of vLLM's weight transfer; `head_dtype`:
    of the head's product, which is the learner's: a head in bfloat16 beside one in float32 is alone worth a mean
    difference of 0.01 nats a token.
    """
    return {
        "model": str(model_path),
        "trust_remote_code": False,
        "dtype": config.dtype,
        "max_model_len": max_model_len,
        "max_num_seqs": config.max_concurrent,
        "max_num_batched_tokens": max(max_model_len, MIN_BATCHED_TOKENS),
        "gpu_memory_utilization": config.gpu_memory_share,
        "tensor_parallel_size": config.tensor_workers,
        "pipeline_parallel_size": config.pipeline_parallel,
        "data_parallel_size": config.data_parallel,
        "enable_expert_parallel": config.expert_parallel,
        "distributed_executor_backend": None if config.executor == "auto" else config.executor,
        "enable_prefix_caching": True,
        "enable_return_routed_experts": config.routed_experts,
        "enforce_eager": not config.compile,
        "hf_overrides": {"head_dtype": head_dtype},
        "logprobs_mode": "processed_logprobs",  # of the distribution that is sampled from, after temperature
        "generation_config": "vllm",
        "weight_transfer_config": {"backend": plugin.BACKENDS[backend]},
        "worker_extension_cls": plugin.WORKER_EXTENSION,
        "enable_log_requests": False,
        "disable_log_stats": True,
        **cpu.engine_settings(model_path, config.kv_cache_gib, config.workers),
        **config.engine_args,
    }
