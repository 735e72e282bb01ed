"""Rewards: one file each, a config that is called on a prompt and a completion.

`math` compares final answers, `format` asks for R1's tags, `judge` asks a language model for a grade, `model` is a
preference model; anyone's own comes in by import path. A worker runs all rewards of a run on one completion, a pool
spreads completions over workers.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, SerializeAsAny

from rlframe.reward.base import Reward
from rlframe.reward.format import Format
from rlframe.reward.judge import Judge
from rlframe.reward.math import Math
from rlframe.reward.model import PreferenceModel
from rlframe.schema import one_of

__all__ = ["BUILTIN", "AnyReward", "Reward", "build"]

BUILTIN: dict[str, type[Reward]] = {"math": Math, "format": Format, "judge": Judge, "model": PreferenceModel}


def build(value: Any) -> Reward:
    """The reward that a mapping's `name` picks. Raises ValueError where the name or a field is wrong."""
    return one_of(value, Reward, BUILTIN)  # pyright: ignore[reportArgumentType]


AnyReward: TypeAlias = Annotated[SerializeAsAny[Reward], BeforeValidator(build)]  # the type of a config's field
