"""Settings of `rlframe select`: `conf/select.yaml` and the choices in `conf/select/`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from rlframe.prompts.config import PromptsConfig
from rlframe.reward.language import Language
from rlframe.schema import Config, one_of
from rlframe.types import FinishReason, VerdictStatus


def _ordered(bounds: list[float | None]) -> list[float | None]:
    low, high = bounds
    if low is not None and high is not None and low > high:
        raise ValueError(f"the least value {low:g} is above the greatest {high:g}")
    return bounds


# Least and greatest value, both allowed; None: no bound.
Bounds: TypeAlias = Annotated[list[float | None], Field(min_length=2, max_length=2), AfterValidator(_ordered)]


def within(value: float, bounds: list[float | None] | None) -> bool:
    """True for a value in the bounds; None: any value is."""
    low, high = bounds or (None, None)
    return (low is None or value >= low) and (high is None or value <= high)


class VerdictRule(Config):
    """A verdict must have a score in these bounds and one of these statuses; None: any."""

    score: Bounds | None = None
    status: list[VerdictStatus] | None = None


class Keep(Config):
    """Filters of completions, one by one."""

    reward: Bounds | None
    verdicts: dict[str, VerdictRule]
    finish_reasons: list[FinishReason] = Field(min_length=1)
    language: str | None
    language_share: float = Field(gt=0, le=1)
    tokens: Bounds | None
    pass_rate: Bounds | None
    tasks: list[str] | None

    def language_reward(self) -> Language | None:
        """The reward that reads the language; None: any language is kept."""
        settings = {"name": "language", "weight": 1.0, "language": self.language}
        return Language.model_validate(settings) if self.language else None

    @model_validator(mode="after")
    def _language_exists(self) -> Keep:
        try:
            self.language_reward()
        except ValueError:
            raise ValueError(f"language: {self.language!r} is no language of the reward `language`") from None
        return self


class Right(Config):
    """The rule by which a completion is right."""

    verdict: str | None
    least: float


class HeldOutConfig(Config):
    """Held-out questions, and what makes a question equal to one."""

    files: list[str]
    ngram: int = Field(ge=3)
    values: bool


class Choice(Config):
    """The choice of demonstrations among a prompt's completions."""

    name: Literal["all", "best", "shortest"]
    per_prompt: int | None = Field(ge=1)


class RandomChoice(Config):
    """Demonstrations by chance."""

    name: Literal["random"]
    per_prompt: int = Field(ge=1)
    seed: int = Field(ge=0)


class LengthPairs(Config):
    """The shortest right completion against wrong ones, or right ones `longer` times as long."""

    name: Literal["pairs"]
    per_prompt: int | None = Field(ge=1)
    longer: float | None = Field(gt=1)


class GradePairs(Config):
    """Completions of like length whose grades differ by `delta` or more in every verdict."""

    name: Literal["grades"]
    per_prompt: int | None = Field(ge=1)
    verdicts: list[str]
    delta: float = Field(gt=0)
    length_ratio: float | None = Field(ge=1)


CHOICES: dict[str, type[Config]] = {
    **dict.fromkeys(("all", "best", "shortest"), Choice),
    "random": RandomChoice,
    "pairs": LengthPairs,
    "grades": GradePairs,
}
AnyChoice: TypeAlias = Annotated[
    Choice | RandomChoice | LengthPairs | GradePairs, BeforeValidator(lambda value: one_of(value, Config, CHOICES))
]


class SelectConfig(Config):
    """A selection: where completions come from, which stay, and what is made of them."""

    sources: list[str]
    out: str
    tokenizer: str | None
    question_only: bool
    keep: Keep
    right: Right
    duplicates: Literal["none", "exact", "normalised"]
    max_truncated: float = Field(ge=0, le=1)
    heldout: HeldOutConfig
    select: AnyChoice
    prompts: PromptsConfig | None = None

    def rewards(self) -> list[str]:
        """Names of the rewards whose verdicts the selection reads."""
        graded = self.select.verdicts if isinstance(self.select, GradePairs) else []
        return [name for name in (self.right.verdict, *self.keep.verdicts, *graded) if name is not None]

    @model_validator(mode="after")
    def _can_work(self) -> SelectConfig:
        if not self.sources:
            raise ValueError("sources: names nothing to select from; give folders or files before the settings")
        if not self.out.endswith(".jsonl"):
            raise ValueError(f"out: {self.out} must end in .jsonl")
        return self
