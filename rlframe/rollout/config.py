"""Settings of the engines and of sampling."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rlframe.model.config import resolve_auto
from rlframe.schema import Config


class RolloutConfig(Config):
    """`conf/rollout/vllm.yaml`."""

    engines: int = Field(ge=1)
    group_size: int = Field(ge=1)
    max_tokens: int = Field(ge=1)
    temperature: float = Field(gt=0)
    dtype: Literal["bfloat16", "float16", "float32"]
    max_concurrent: int = Field(ge=1)
    kv_cache_gib: int = Field(ge=1)
    gpu_memory_share: float = Field(gt=0, le=1)
    compile: bool
    cpus: int = Field(ge=0)
    gpus: int = Field(ge=0)
    routed_experts: bool

    @model_validator(mode="before")
    @classmethod
    def _resolve_auto(cls, settings: Any) -> Any:
        return resolve_auto(settings, "dtype")
