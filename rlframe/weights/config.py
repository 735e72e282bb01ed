"""Settings of the transfer of new weights to the engines."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from rlframe.schema import Config

ADAPTER_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vLLM's values of `max_lora_rank`


class WeightsConfig(Config):
    """`weights` in `conf/train.yaml`."""

    backend: Literal["object_store", "nccl", "ipc"]
    adapters: Literal["merged", "alone"]
    chunk_mib: int = Field(ge=1)
    full_every: int = Field(ge=1)

    @field_validator("backend", mode="before")
    @classmethod
    def _is_verified(cls, backend: Any) -> Any:
        if backend == "sharded_rdt":
            raise ValueError(
                "sharded_rdt lets vLLM's workers pull slices of tensors by NIXL, which no checksum of rlframe covers, "
                "and NIXL is not among the pinned packages; use nccl between GPUs"
            )
        return backend
