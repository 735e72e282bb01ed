"""Settings of a run's rewards and of their workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, field_validator, model_validator

from rlframe.reward import AnyReward, Reward
from rlframe.schema import Config, Labels, Resources

if TYPE_CHECKING:
    from typing import Self


class RewardConfig(Config):
    """`conf/reward/*.yaml`."""

    workers: int = Field(ge=1)
    cpus: float = Field(ge=0)
    labels: Labels
    resources: Resources
    timeout_s: float = Field(gt=0)
    attempts: int = Field(ge=1)
    max_failed_share: float = Field(ge=0, le=1)
    terms: dict[str, AnyReward] = Field(min_length=1)

    @field_validator("terms")
    @classmethod
    def _references_exist(cls, terms: dict[str, Reward]) -> dict[str, Reward]:
        for name, term in terms.items():
            for reference in term.refers_to():
                if reference == name or reference not in terms:
                    known = ", ".join(sorted(set(terms) - {name})) or "none"
                    raise ValueError(f"{name} refers to the reward {reference!r}; there are besides it: {known}")
                if terms[reference].looks_at_group():
                    raise ValueError(f"{name} refers to {reference!r}, which looks at groups; only others can decide")
        return terms

    @model_validator(mode="after")
    def _calls_fit_the_timeout(self) -> Self:
        """A call beyond `timeout_s` costs its worker and has no score, so a slow completion must end before."""
        for name, term in self.terms.items():
            if term.slowest_s() >= self.timeout_s:
                raise ValueError(
                    f"timeout_s: {self.timeout_s:g} s are too short for terms.{name}, whose settings allow a call "
                    f"{term.slowest_s():g} s, so a slow completion would have no score; use a longer timeout_s, or "
                    f"shorter limits in terms.{name}"
                )
        return self
