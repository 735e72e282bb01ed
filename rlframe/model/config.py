"""Settings of the policy's model: its path, its adapters, and the meaning of `auto` for a dtype."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator

from rlframe.model import base_model, precision
from rlframe.schema import Config, is_for_another_machine


class ModelConfig(Config):
    """`model` in `conf/train.yaml`."""

    path: str

    @field_validator("path")
    @classmethod
    def _exists(cls, path: str) -> str:
        return path if is_for_another_machine() else base_model.pinned(path)


class LoraConfig(Config):
    """`learner.lora`: low-rank adapters."""

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    targets: list[str] = Field(min_length=1)

    @field_validator("targets")
    @classmethod
    def _has_no_head(cls, targets: list[str]) -> list[str]:
        if heads := {"lm_head", "score"} & set(targets):
            raise ValueError(f"{heads.pop()} cannot have an adapter; leave it out")
        return targets


def resolve_auto(settings: Any, *keys: str) -> Any:
    """Replaces `auto` under each of `keys` by the fastest dtype of a GPU or, where `gpus` is 0, of this machine's CPU.

    `settings` is the unchecked mapping of a config; any other value is returned as it is, for pydantic to refuse.
    """
    if not isinstance(settings, dict):
        return settings
    return settings | {key: precision.fastest(settings.get("gpus", 0)) for key in keys if settings.get(key) == "auto"}
