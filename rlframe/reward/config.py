"""Settings of a run's rewards and of their workers."""

from __future__ import annotations

from pydantic import Field, field_validator

from rlframe.reward import AnyReward, Reward
from rlframe.schema import Config


class RewardConfig(Config):
    """`conf/reward/*.yaml`."""

    workers: int = Field(ge=1)
    cpus: float = Field(ge=0)
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
