"""Sources of problems, and the stream of prompts that is made from their problems.

A new source needs one file here, one entry in BUILTIN and one YAML file. An import path names a user's own source.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BeforeValidator, SerializeAsAny

from rlframe.prompts.arithmetic import Arithmetic
from rlframe.prompts.base import Source
from rlframe.prompts.hub import Hub
from rlframe.prompts.jsonl import Jsonl
from rlframe.prompts.mixture import SIMPLE_SOURCES, Mixture
from rlframe.prompts.parquet import Parquet
from rlframe.prompts.reasoning_gym import ReasoningGym
from rlframe.schema import one_of

__all__ = ["BUILTIN", "AnySource", "Arithmetic", "Hub", "Jsonl", "Mixture", "Parquet", "ReasoningGym", "Source"]

BUILTIN: dict[str, type[Source]] = {**SIMPLE_SOURCES, "mixture": Mixture}

# SerializeAsAny: a saved config keeps all fields of the chosen class; pydantic alone would keep the fields of Source.
AnySource: TypeAlias = Annotated[SerializeAsAny[Source], BeforeValidator(lambda value: one_of(value, Source, BUILTIN))]
