"""Settings of the learner: optimizer, precision, and the division of work over its ranks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rlframe.model.config import LoraConfig, resolve_auto
from rlframe.schema import Config
from rlframe.types import PACKED_ATTENTION


class MoEConfig(Config):
    """`learner.moe`: mixtures of experts."""

    bias_update_rate: float = Field(ge=0)


class LearnerConfig(Config):
    """`conf/learner/zero3.yaml`."""

    ranks: int = Field(ge=1)
    sequence_parallel: int = Field(ge=1)
    optimizer: Literal["adamw", "muon"]
    lr: float = Field(gt=0)
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: int = Field(ge=0)
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(min_length=2, max_length=2)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    max_skipped: int = Field(ge=1)
    lora: LoraConfig | None
    minibatches: int = Field(ge=1)
    epochs: int = Field(ge=1)
    entropy_bonus: float = Field(ge=0)
    micro_batch_tokens: int = Field(ge=1)
    dtype: Literal["bfloat16", "float32"]
    head_dtype: Literal["bfloat16", "float32"]
    attention: str
    gradient_checkpointing: bool
    offload_optimizer: bool
    offload_parameters: bool
    expert_parallel: int | None = Field(ge=2)
    moe: MoEConfig
    cpus: int = Field(ge=0)
    gpus: int = Field(ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _resolve_auto(cls, settings: Any) -> Any:
        return resolve_auto(settings, "dtype", "head_dtype")

    @property
    def shares_prefixes(self) -> bool:
        """True if a micro-batch holds a prompt once for all its completions, which only our own attention supports."""
        return self.attention == PACKED_ATTENTION
