"""Keeps vLLM's CPU backend from crashing, and from computing a group's prompt once for every completion.

Nothing on GPUs. Each setting names a flaw of vLLM 0.32; delete the setting when the flaw is gone.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from rlframe.rollout.config import RolloutConfig


def engine_settings(config: RolloutConfig, model_path: Path) -> dict[str, Any]:
    """Sets environment variables -> arguments of `AsyncEngineArgs`: for an engine on a CPU; none on a GPU."""
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(config.kv_cache_gib)  # before vLLM is imported
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {}
    # A prompt that is prefilled in several chunks ends vLLM's CPU worker if the request has a seed.
    compilation: dict[str, Any] = {}
    settings: dict[str, Any] = {"enable_chunked_prefill": False, "compilation_config": compilation}
    if config.workers == 1:
        # A single process schedules and computes. With two processes a waiting scheduler spins on a core, which is lost
        # for computing. vLLM falls back to two processes unless the clients' multiprocessing is off.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    else:
        # vLLM would give each worker the cores of a memory node alone, and most machines have fewer nodes than workers.
        # Workers share the actor's cores by OMP_NUM_THREADS instead.
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    if "kv_lora_rank" in json.loads((model_path / "config.json").read_text()):  # DeepSeek's latent attention
        # vLLM's CPU kernel rotates heads at wrong positions where heads are a dimension of their own.
        compilation["custom_ops"] = ["-rotary_embedding"]
        # Where a processor has AMX, vLLM takes a backend that knows 16 bits only, and ends at float32.
        settings["attention_backend"] = "CPU_MLA"
    else:
        # A group shares a prompt by whole blocks of keys and values. vLLM's blocks on a CPU have 128 tokens, so most
        # of a short prompt would be computed for every completion anew. The kernels take no less than 32.
        settings["block_size"] = 32
    if config.pipeline_parallel > 1:
        # Stages receive tensors in buffers that only a warm-up allocates, and vLLM warms up only what it compiles.
        settings["enforce_eager"] = False
        compilation |= {"mode": "DYNAMO_TRACE_ONCE", "backend": "eager"}
    return settings


def forget_packed_experts(model: torch.nn.Module) -> None:
    """Lets vLLM pack experts again for the CPU kernels, before new weights are loaded; does nothing on a GPU.

    vLLM packs experts when it creates their kernel, and skips a layer that has a kernel: the old kernel would read
    new values in the old order. On a GPU the kernel must stay, because graphs have captured the kernel's addresses.
    """
    from vllm.model_executor.layers.fused_moe.fused_moe_method_base import FusedMoEMethodBase
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    for layer in model.modules():
        if isinstance(method := getattr(layer, "quant_method", None), FusedMoEMethodBase):
            method.moe_kernel = None
