"""Settings of the transfer of new weights to the engines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlframe.schema import Config


class WeightsConfig(Config):
    """`weights` in `conf/train.yaml`."""

    backend: Literal["object_store", "nccl", "ipc"]
    chunk_mib: int = Field(ge=1)
    full_every: int = Field(ge=1)
