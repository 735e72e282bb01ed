"""Settings of evaluations: the held-out sets, and the sampling and judgement of each."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from rlframe.prompts import AnySource
from rlframe.rollout.config import StopString, TokenId
from rlframe.schema import Config

SetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]  # a part of metric names and of file names


class SamplingKeys(Config):
    """Sampling of prompts without training, and the reward that decides what is right."""

    reward: str | None
    samples: int = Field(ge=1)
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    top_k: int = Field(ge=0)
    min_p: float = Field(ge=0, le=1)
    max_tokens: int | None = Field(ge=1)
    stop: list[StopString] | None
    stop_token_ids: list[TokenId] | None


class SetConfig(SamplingKeys):
    """Sampling and judgement of a held-out set."""

    k: list[Annotated[int, Field(ge=1)]] | None = Field(min_length=1)

    @property
    def tries(self) -> list[int]:
        """The k of every pass@k, ascending."""
        return sorted(set(self.k or [1, self.samples]))


class HeldOutSet(SetConfig):
    """`evaluate.sets.<name>`: a further set. YAML names the keys that differ from those of `evaluate`."""

    source: AnySource


class EvaluateConfig(SetConfig):
    """`evaluate` in `conf/train.yaml`: the settings of the set of `prompts.heldout`, and further sets by name."""

    every: int = Field(ge=0)
    sets: dict[SetName, HeldOutSet]

    @model_validator(mode="before")
    @classmethod
    def _complete_sets(cls, settings: Any) -> Any:
        return complete_sets(settings)


def complete_sets(evaluate: Any) -> Any:
    """Fills the keys that a set leaves out with those of `evaluate`; k belongs to samples, and is null instead."""
    if not isinstance(evaluate, dict) or not isinstance(evaluate.get("sets"), dict):
        return evaluate
    shared = {key: evaluate[key] for key in SetConfig.model_fields if key in evaluate}
    sets = {name: _completed(given, shared) for name, given in evaluate["sets"].items()}
    return evaluate | {"sets": sets}


def complete_sources(settings: Any) -> Any:
    """A run's settings in which every held-out set has a whole source.

    A set names the keys in which its source differs from `prompts.heldout`; without any it has the same problems. A
    source of another `name` stands alone, since its class has other keys.

        prompts.heldout        {name: hub, path: openai/gsm8k, split: test, ...}
        evaluate.sets.small    {source: {size: 50}}   -> {name: hub, path: openai/gsm8k, split: test, ..., size: 50}
        evaluate.sets.greedy   {temperature: 0}       -> the source of prompts.heldout
    """
    match settings:
        case {"prompts": {"heldout": dict(heldout)}, "evaluate": {"sets": dict(sets)} as evaluate}:
            completed = {name: _with_source(given, heldout) for name, given in sets.items()}
            return settings | {"evaluate": evaluate | {"sets": completed}}
    return settings


def _completed(given: Any, shared: dict[str, Any]) -> Any:
    if not isinstance(given, dict):
        return given
    return shared | ({"k": None} if "samples" in given else {}) | given


def _with_source(given: Any, heldout: dict[str, Any]) -> Any:
    if not isinstance(given, dict):
        return given
    source = given.get("source", {})
    if isinstance(source, dict) and source.get("name", heldout.get("name")) == heldout.get("name"):
        source = heldout | source
    return given | {"source": source}
