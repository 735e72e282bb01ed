"""Settings of the learner: optimizer, precision, and the division of work over its ranks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from rlframe.model.config import LoraConfig, resolve_auto
from rlframe.schema import Config, Label, Labels, Passthrough, Resources
from rlframe.training import Packing


class MoEConfig(Config):
    """`learner.moe`: mixtures of experts."""

    bias_update_rate: float = Field(ge=0)


def _steps_or_share(value: float) -> float:
    if value > 1 and value % 1:
        raise ValueError(f"{value:g} is neither a whole number of steps, nor below 1 their share of the run's steps")
    return value


class LearnerConfig(Config):
    """`conf/learner/zero3.yaml`."""

    ranks: int = Field(ge=1)
    sequence_parallel: int = Field(ge=1)
    optimizer: Literal["adamw", "muon"]
    lr: float = Field(gt=0)
    min_lr: float = Field(ge=0)
    schedule: Literal["constant", "linear", "cosine"]
    warmup_steps: Annotated[float, Field(ge=0), AfterValidator(_steps_or_share)]
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(min_length=2, max_length=2)
    adam_epsilon: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    max_skipped: int = Field(ge=1)
    max_losses: int = Field(ge=0)
    lora: LoraConfig | None
    minibatches: int = Field(ge=1)
    epochs: int = Field(ge=1)
    entropy_bonus: float = Field(ge=0)
    micro_batch_tokens: int = Field(ge=1)
    dtype: Literal["bfloat16", "float32"]
    head_dtype: Literal["bfloat16", "float32"]
    attention: Literal["rlframe_packed", "flash_attention_2", "flash_attention_3", "flash_attention_4", "sdpa", "eager"]
    packing: Packing | Literal["auto"]
    gradient_checkpointing: bool
    offload_optimizer: bool
    offload_parameters: bool
    expert_parallel: int | None = Field(ge=2)
    moe: MoEConfig
    deepspeed: Passthrough
    cpus: int = Field(ge=0)
    gpus: int = Field(ge=0, le=1)
    labels: Labels
    resources: Resources
    strategy: Literal["pack", "strict_pack", "spread", "strict_spread"]
    topology: Label | None

    @model_validator(mode="before")
    @classmethod
    def _resolve_auto(cls, settings: Any) -> Any:
        return resolve_auto(settings, "dtype", "head_dtype")
