"""One file an algorithm; `ops`, the formulas that they share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from rlframe.algorithm.base import Algorithm
from rlframe.algorithm.dapo import DAPO
from rlframe.algorithm.grpo import GRPO
from rlframe.schema import one_of

BUILTIN: dict[str, type[Algorithm]] = {"grpo": GRPO, "dapo": DAPO}

# What a config key of an algorithm accepts: a built-in name, or a user's class by import path.
AnyAlgorithm = Annotated[SerializeAsAny[Algorithm], BeforeValidator(lambda value: one_of(value, Algorithm, BUILTIN))]

__all__ = ["BUILTIN", "DAPO", "GRPO", "Algorithm", "AnyAlgorithm"]
