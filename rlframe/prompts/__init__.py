"""Sources of problems, and the stream of prompts made from them.

A new source is one file here, one entry in BUILTIN and one YAML; a user's own is named by its import path.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, SerializeAsAny

from rlframe.prompts.arithmetic import Arithmetic
from rlframe.prompts.base import Source
from rlframe.prompts.hub import Hub
from rlframe.prompts.jsonl import Jsonl
from rlframe.prompts.mixture import PARTS, Mixture
from rlframe.prompts.reasoning_gym import ReasoningGym
from rlframe.schema import one_of

__all__ = ["BUILTIN", "AnySource", "Arithmetic", "Hub", "Jsonl", "Mixture", "ReasoningGym", "Source"]

BUILTIN: dict[str, type[Source]] = {**PARTS, "mixture": Mixture}

# SerializeAsAny: a saved config keeps the fields of the class picked, not only those of Source.
AnySource: TypeAlias = Annotated[SerializeAsAny[Source], BeforeValidator(lambda value: one_of(value, Source, BUILTIN))]
