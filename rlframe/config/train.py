"""Settings of train/ and cluster/, in this room because imports point down and both rooms are above config/."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlframe.schema import Config, Labels


class MismatchConfig(Config):
    """`mismatch` in `conf/train.yaml`: bounds of the train/rollout mismatch."""

    action: Literal["warn", "correct", "stop"]
    max_k3: float = Field(gt=0)
    max_abs_mean: float = Field(gt=0)
    max_k3_stale: float = Field(gt=0)
    max_abs_mean_stale: float = Field(gt=0)


class CheckpointConfig(Config):
    """`checkpoint` in `conf/train.yaml`."""

    every: int = Field(ge=0)
    keep: int = Field(ge=1)
    export: bool
    on_error: Literal["stop", "warn"]


class DriverConfig(Config):
    """`cluster.driver`: the node on which the driver of a submitted run starts."""

    cpus: float = Field(ge=0)
    labels: Labels


class ClusterConfig(Config):
    """`conf/cluster/*.yaml`: the Ray cluster of a run."""

    address: str | None
    object_store_gib: float | None = Field(gt=0)
    start_timeout_s: float = Field(gt=0)
    stall_timeout_s: float = Field(gt=0)
    stop_timeout_s: int = Field(ge=1)
    allow_open: bool
    env_vars: dict[str, str]
    driver: DriverConfig


class PlanConfig(Config):
    """`plan` in `conf/train.yaml`: the check before a start, and assumptions about speeds."""

    check: Literal["refuse", "warn"]
    gpu: str | None
    completion_tokens: float | None = Field(gt=0)
    learner_share: float = Field(gt=0, le=1)
    engine_share: float = Field(gt=0, le=1)
    rank_tokens_per_s: float | None = Field(gt=0)
    engine_tokens_per_s: float | None = Field(gt=0)
    network_gbs: float = Field(gt=0)
