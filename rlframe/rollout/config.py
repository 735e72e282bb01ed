"""Settings of the engines and of sampling."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from rlframe.model.config import resolve_auto
from rlframe.rollout.engine_range import EngineRange
from rlframe.rollout.messages import EngineBounds
from rlframe.schema import Config, Labels, Passthrough, Resources
from rlframe.types import Sampling

LEAST_TEMPERATURE = 0.01  # vLLM raises any lower temperature above 0 to this
LEAST_SILENCE_S = 5.0  # an engine is asked once a second, and a busy machine answers late

StopString: TypeAlias = Annotated[str, Field(min_length=1)]
TokenId: TypeAlias = Annotated[int, Field(ge=0)]


class RolloutConfig(Config):
    """`conf/rollout/vllm.yaml`."""

    engines: EngineRange
    max_losses: float = Field(gt=0)
    group_size: int = Field(ge=1)
    max_tokens: int = Field(ge=1)
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    top_k: int = Field(ge=0)
    min_p: float = Field(ge=0, le=1)
    stop: list[StopString]
    stop_token_ids: list[TokenId]
    dtype: Literal["bfloat16", "float16", "float32"]
    max_concurrent: int = Field(ge=1)
    ahead: float = Field(ge=0)
    silence_s: float
    attempts: int = Field(ge=1)
    cache: Literal["recompute", "keep"]
    episode_workers: int | None = Field(ge=0)
    kv_cache_gib: int = Field(ge=1)
    gpu_memory_share: float = Field(gt=0, le=1)
    compile: bool
    cpus: int = Field(ge=0)
    gpus: int = Field(ge=0)
    labels: Labels
    resources: Resources
    strategy: Literal["spread", "pack"]
    tensor_parallel: int | None = Field(ge=1)
    pipeline_parallel: int = Field(ge=1)
    data_parallel: int = Field(ge=1)
    expert_parallel: bool
    executor: Literal["auto", "mp", "ray"]
    engine_args: Passthrough
    routed_experts: bool

    @model_validator(mode="before")
    @classmethod
    def _resolve_auto(cls, settings: Any) -> Any:
        return resolve_auto(settings, "dtype")

    @field_validator("silence_s")
    @classmethod
    def _allows_loads(cls, silence_s: float) -> float:
        if silence_s < LEAST_SILENCE_S:
            raise ValueError(
                f"{silence_s:g} s are too few: while it loads weights, an engine sends no token, and it says so once a "
                "second, or later on a busy machine, so a load would be taken for a death; use "
                f"{LEAST_SILENCE_S:g} or more"
            )
        return silence_s

    @property
    def tensor_workers(self) -> int:
        """Workers that divide every layer: `tensor_parallel`, or else gpus / (pipeline_parallel x data_parallel)."""
        return self.tensor_parallel or max(1, self.gpus // (self.pipeline_parallel * self.data_parallel))

    @property
    def workers(self) -> int:
        """vLLM's worker processes of an engine; on GPUs each has one GPU."""
        return self.tensor_workers * self.pipeline_parallel * self.data_parallel

    @property
    def slots(self) -> int:
        """Completions that an engine generates at the same time."""
        return self.max_concurrent * self.data_parallel

    def bounds(self, stall_timeout_s: float) -> EngineBounds:
        """`stall_timeout_s`: of the run; within it an engine's first call must give a token."""
        return EngineBounds(silence_s=self.silence_s, first_token_s=stall_timeout_s, attempts=self.attempts)

    def sampling(self, seed: int) -> Sampling:
        """The sampling of training prompts."""
        return Sampling(
            completions=self.group_size,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=seed,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            stop=self.stop,
            stop_token_ids=self.stop_token_ids,
        )
