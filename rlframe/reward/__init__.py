"""Rewards: one file each, a config that is called on a prompt and a completion.

`math` compares final answers, `code` runs programs against tests in a sandbox, `format` asks for R1's tags, `language`
for thoughts in one language; `soft_overlong`, `kimi_length` and `repetition` keep completions short and fresh; `judge`
asks a language model for a grade, `model` is a preference model; anyone's own comes in by import path. A worker runs a
run's rewards on one completion, a pool spreads completions over workers.
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
}


def build(value: Any) -> Reward:
    """The reward that a mapping's `name` picks. Raises ValueError where the name or a field is wrong."""
    return one_of(value, Reward, BUILTIN)  # pyright: ignore[reportArgumentType]


AnyReward: TypeAlias = Annotated[SerializeAsAny[Reward], BeforeValidator(build)]  # the type of a config's field
