"""Arguments of an engine: rlframe's settings -> vLLM's `AsyncEngineArgs`."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlframe.rollout import cpu, plugin
from rlframe.schema import deep_merge

if TYPE_CHECKING:
    from rlframe.model.config import LoraConfig
    from rlframe.rollout.config import RolloutConfig

_MODEL = "use model.path"
_PLACE = "rlframe places an engine's workers; use rollout.data_parallel and rollout.executor"
_ADAPTERS = "rlframe brings adapters to the engines by itself; use learner.lora"

# Argument of vLLM -> the reason of its refusal, and the key to use.
OWNED = {
    **dict.fromkeys(
        ["model", "model_weights", "tokenizer", "skip_tokenizer_init", "hf_config_path", "hf_token"], _MODEL
    ),
    **dict.fromkeys(["revision", "code_revision", "tokenizer_revision"], "use model.path=owner/name@revision"),
    "trust_remote_code": "rlframe never runs code of a model's folder; remove it",
    "dtype": "use rollout.dtype",
    "seed": "every completion has its own seed; use seed",
    "max_model_len": "use prompts.max_tokens and rollout.max_tokens",
    "max_num_seqs": "use rollout.max_concurrent",
    "gpu_memory_utilization": "use rollout.gpu_memory_share",
    "tensor_parallel_size": "use rollout.tensor_parallel",
    "pipeline_parallel_size": "use rollout.pipeline_parallel",
    "data_parallel_size": "use rollout.data_parallel",
    "prefill_context_parallel_size": "rlframe does not know engines that divide a prompt's tokens; remove it",
    "enable_expert_parallel": "use rollout.expert_parallel",
    "distributed_executor_backend": "use rollout.executor",
    **dict.fromkeys(["data_parallel_rank", "data_parallel_start_rank", "data_parallel_size_local"], _PLACE),
    **dict.fromkeys(["data_parallel_address", "data_parallel_rpc_port", "data_parallel_backend"], _PLACE),
    **dict.fromkeys(["data_parallel_hybrid_lb", "data_parallel_external_lb"], _PLACE),
    **dict.fromkeys(["data_parallel_multi_port_external_lb", "device_ids"], _PLACE),
    **dict.fromkeys(["nnodes", "node_rank", "master_addr", "master_port"], _PLACE),
    "enable_return_routed_experts": "use rollout.routed_experts",
    "aux_output_config": "use rollout.routed_experts",
    "enforce_eager": "use rollout.compile",
    "hf_overrides": "the learner reads config.json of model.path too; change it there",
    "logprobs_mode": "the loss needs log-probabilities of the sampled distribution; remove it",
    "generation_config": "use rollout.temperature, top_p, top_k, min_p, stop",
    "override_generation_config": "use rollout.temperature, top_p, top_k, min_p, stop",
    "weight_transfer_config": "use weights.backend",
    "worker_extension_cls": "rlframe's own extension verifies weights; remove it",
    **dict.fromkeys(["enable_lora", "max_loras", "max_lora_rank", "max_cpu_loras", "lora_dtype"], _ADAPTERS),
    **dict.fromkeys(["lora_target_modules", "default_mm_loras", "fully_sharded_loras"], _ADAPTERS),
    "enable_sleep_mode": "engines sleep where they share GPUs with the learner; use placement=colocated",
    "runner": "an engine samples completions; remove it",
    "convert": "an engine samples completions; remove it",
}

# Methods by which vLLM quantises full weights as it loads them, at the start and at each update.
CPU_QUANTISATION = "int8_per_channel_weight_only"
QUANTISATIONS = [
    "fp8",
    "fp8_per_tensor",
    "fp8_per_block",
    "fp8_per_channel",
    "mxfp8",
    "mxfp4",
    "nvfp4_per_token",
    CPU_QUANTISATION,
    "online",
]
SCORED_TOKENS = 2048  # in a step of a teacher on a GPU, which holds the logits of all of them: 1.2 GB for 150k tokens
MIN_BATCHED_TOKENS = 8192  # of prompts in a step of the scheduler, so that no prompt waits for the next step


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """An engine's settings from outside of `rollout`."""

    max_model_len: int  # tokens of a prompt and a completion together
    backend: str  # weights.backend
    # The learner's. A head in bfloat16 against a head in float32 makes a mean difference of 0.01 nats a token.
    head_dtype: str
    # Starts with random weights and without the model's quantisation, because the learner's dequantised weights come
    # before the engine samples.
    empty: bool
    lora: LoraConfig | None  # of adapters that travel alone
    shares_gpus: bool  # with learner ranks by turns, so vLLM allocates memory that it can give back
    executor: Literal["mp", "ray"]  # mp: workers on this machine; ray: in the placement group of this actor
    teaches: bool = False  # the engine computes log-probabilities of given tokens, and samples nothing


def engine_arguments(config: RolloutConfig, model_path: Path, settings: EngineSettings) -> dict[str, Any]:
    """Arguments of `AsyncEngineArgs`. On a CPU sets environment variables too, so call it before vLLM is imported."""
    spread = settings.executor == "ray" or config.workers > 1
    arguments = {
        "model": str(model_path),
        "trust_remote_code": False,
        "dtype": config.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": config.max_concurrent,
        "max_num_batched_tokens": batched_tokens(config, settings),
        "gpu_memory_utilization": config.gpu_memory_share,
        "tensor_parallel_size": config.tensor_workers,
        "pipeline_parallel_size": config.pipeline_parallel,
        "data_parallel_size": config.data_parallel,
        "enable_expert_parallel": config.expert_parallel,
        "distributed_executor_backend": settings.executor if spread else "uni",
        "enable_prefix_caching": True,
        "enable_return_routed_experts": config.routed_experts,
        "enforce_eager": not config.compile,
        "hf_overrides": {"head_dtype": settings.head_dtype} | ({"quantization_config": None} if settings.empty else {}),
        "logprobs_mode": "processed_logprobs",  # of the distribution that is sampled from, after temperature
        "generation_config": "vllm",
        "weight_transfer_config": {"backend": plugin.BACKENDS[settings.backend]},
        "worker_extension_cls": plugin.WORKER_EXTENSION,
        "enable_sleep_mode": settings.shares_gpus,
        "enable_log_requests": False,
        "disable_log_stats": True,
        **cpu.engine_settings(config, model_path),
    }
    return deep_merge(arguments, config.engine_args) | ({"load_format": "dummy"} if settings.empty else {})


def batched_tokens(config: RolloutConfig, settings: EngineSettings) -> int:
    """Most tokens of prompts in a step of the scheduler; on a CPU no prompt is cut."""
    if settings.teaches and config.gpus:
        return SCORED_TOKENS
    return max(settings.max_model_len, MIN_BATCHED_TOKENS)


def known_names() -> set[str] | None:
    """Names of the arguments that the installed vLLM takes, read without importing vLLM; None if there is no vLLM."""
    package = importlib.util.find_spec("vllm")
    if package is None or package.origin is None:
        return None
    source = (Path(package.origin).parent / "engine" / "arg_utils.py").read_text()
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    fields = [field for node in classes if node.name in ("EngineArgs", "AsyncEngineArgs") for field in node.body]
    return {f.target.id for f in fields if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)}
