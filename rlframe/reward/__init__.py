"""Rewards, one file each: a config that scores a completion.

- `math` compares final answers; `code` runs programs against tests in a sandbox;
- `format` wants R1's tags; `language` wants thoughts in one language;
- `soft_overlong`, `kimi_length` and `repetition` penalize length and repetition;
- `judge` asks a language model for a grade; `model` is a preference model.

Your own reward comes in by import path: see `Reward`. A worker runs all rewards of a run on a completion; the pool
spreads completions over workers; `composition` adds up the verdicts.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, SerializeAsAny

from rlframe.reward.base import Reward
from rlframe.reward.code import Code
from rlframe.reward.format import Format
from rlframe.reward.judge import Judge
from rlframe.reward.language import Language
from rlframe.reward.length import KimiLength, SoftOverlong
from rlframe.reward.math import Math
from rlframe.reward.model import PreferenceModel
from rlframe.reward.repetition import Repetition
from rlframe.reward.steps import ProcessReward
from rlframe.schema import one_of

__all__ = ["BUILTIN", "AnyReward", "Reward", "build"]

BUILTIN: dict[str, type[Reward]] = {
    "math": Math,
    "code": Code,
    "format": Format,
    "language": Language,
    "soft_overlong": SoftOverlong,
    "kimi_length": KimiLength,
    "repetition": Repetition,
    "judge": Judge,
    "model": PreferenceModel,
    "steps": ProcessReward,
}


def build(value: Any) -> Reward:
    """The reward that a mapping's `name` picks. Raises ValueError for a wrong name or setting."""
    return one_of(value, Reward, BUILTIN)


AnyReward: TypeAlias = Annotated[SerializeAsAny[Reward], BeforeValidator(build)]  # type of a config's field
