"""Settings of a run's prompts: two sources of problems, and the template of both."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rlframe.prompts import AnySource
from rlframe.prompts.stream import LongPrompts
from rlframe.prompts.template import Template
from rlframe.schema import Config


class CurriculumConfig(Config):
    """`prompts.curriculum`: probabilities with which a later epoch draws a problem again."""

    solved_weight: float = Field(ge=0, le=1)  # of a problem that all completions solved
    failed_weight: float = Field(ge=0, le=1)  # of a problem that all completions failed


class PromptsConfig(Config):
    """`conf/prompts/*.yaml`."""

    train: AnySource
    heldout: AnySource
    template: Template
    max_tokens: int = Field(gt=0)
    overlong: LongPrompts
    overlap: Literal["error", "drop"]
    curriculum: CurriculumConfig | None
