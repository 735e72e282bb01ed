"""`SharedKeys`: keys of every run that trains; `RunKeys`: every key of a run of reinforcement learning.

Each value is checked alone. YAML holds all values; no class repeats one as a default.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from rlframe.algorithm import AnyAlgorithm
from rlframe.algorithm.rate import Truncated
from rlframe.config.environment import Name, Path, paths, value_at
from rlframe.config.evaluate import EvaluateConfig, SetConfig, complete_sets, complete_sources
from rlframe.config.train import CheckpointConfig, ClusterConfig, MismatchConfig, PlanConfig
from rlframe.learner.config import LearnerConfig
from rlframe.model.config import ModelConfig
from rlframe.objective.correction import Correction, Corrections
from rlframe.objective.kl import KL
from rlframe.prompts import Source
from rlframe.prompts.config import PromptsConfig
from rlframe.record.config import TrackingConfig
from rlframe.record.evaluations import MAIN_SET
from rlframe.reward.config import RewardConfig
from rlframe.rollout.config import RolloutConfig
from rlframe.rollout.teacher_config import TeacherConfig, TeacherName
from rlframe.schema import AnotherMachine, Config, SecretName
from rlframe.types import Late
from rlframe.weights.config import WeightsConfig


class SharedKeys(Config):
    """The keys that `rlframe train` and `rlframe tune` have in common, and what their runs derive from other keys.

    Raises `ValueError` with one line for each rule in `checks` that the settings break.
    """

    checks: ClassVar[list[Callable[[Any], str | None]]] = []

    seed: int = Field(ge=0)
    run_dir: str
    resume: str | None
    secrets: list[SecretName]
    model: ModelConfig
    algorithm: AnyAlgorithm
    kl: KL | None = None
    learner: LearnerConfig
    checkpoint: CheckpointConfig
    tracking: TrackingConfig
    cluster: ClusterConfig

    _names: dict[Path, Name] = PrivateAttr(default_factory=dict)  # of values from the environment

    @model_validator(mode="after")
    def _passes_checks(self) -> Self:
        problems = [problem for check in self.checks if (problem := self._problem(check)) is not None]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _problem(self, check: Callable[[Any], str | None]) -> str | None:
        try:
            return check(self)
        except AnotherMachine:  # which checks this rule itself
            return None

    def keep_names(self, settings: Any, names: Any) -> None:
        """Remembers where values came from the environment; the arguments are what `resolve` returned."""
        self._names |= paths(names)
        if name := self._names.get(path := ("model", "path")):
            self._names[path] = Name(name + self.model.path.removeprefix(settings["model"]["path"]))  # its commit

    def written(self) -> dict[str, Any]:
        """The settings for people and files: a value from the environment is a `Name`."""
        settings = self.model_dump()
        for path, name in self._names.items():
            value_at(settings, path[:-1])[path[-1]] = name
        return settings

    @property
    @abstractmethod
    def last_step(self) -> int:
        """The number of the run's steps."""

    @property
    @abstractmethod
    def longest_sequence(self) -> int:
        """Most tokens of a sequence to train on."""

    @property
    @abstractmethod
    def evaluation_every(self) -> int:
        """Steps between evaluations; 0: there are none."""

    @property
    @abstractmethod
    def chat_template(self) -> str | None:
        """The run's own chat template, which its exported copies have too; None: the model's."""

    @property
    def counts_steps(self) -> bool:
        """True once `last_step` is known: before the rows of a tuning run are read, only their epochs may be."""
        return True

    @property
    def temperature(self) -> float:
        """The temperature of the distribution that the learner computes."""
        return 1.0

    @property
    def initial_correction(self) -> list[Correction]:
        """The corrections of the first step."""
        return []


class RunKeys(SharedKeys):
    """The keys of a whole run. Rules (`*checks.py`, `warnings.py`) read `RunKeys`; other code reads `RunConfig`."""

    steps: int = Field(ge=1)
    prompts_per_step: int = Field(ge=1)
    max_staleness: int = Field(ge=0)
    late: Late
    placement: Literal["separate", "colocated"]
    dynamic_sampling: bool
    max_resampled: float = Field(gt=0)
    truncated: Truncated
    prompts: PromptsConfig
    rollout: RolloutConfig
    teachers: dict[TeacherName, TeacherConfig]
    reward: RewardConfig
    correction: Corrections
    mismatch: MismatchConfig
    weights: WeightsConfig
    evaluate: EvaluateConfig
    plan: PlanConfig

    @model_validator(mode="before")
    @classmethod
    def _complete_held_out_sets(cls, settings: Any) -> Any:
        return complete_sources(settings)

    def keep_names(self, settings: Any, names: Any) -> None:
        completed = complete_sources(names)  # a held-out set may have got such a value
        super().keep_names(settings, completed | {"evaluate": complete_sets(completed["evaluate"])})

    @property
    def last_step(self) -> int:
        return self.steps

    @property
    def evaluation_every(self) -> int:
        return self.evaluate.every

    @property
    def chat_template(self) -> str | None:
        return self.prompts.template.jinja()

    @property
    def temperature(self) -> float:
        return self.rollout.temperature

    @property
    def longest_sequence(self) -> int:
        """Tokens of the longest prompt with the longest completion."""
        return self.prompts.max_tokens + self.rollout.max_tokens

    def oldest_version(self, version: int) -> int | None:
        """The oldest version whose tokens policy `version` trains on; None, under late=keep: it trains on all tokens.

        With max_staleness=0 and under late=wait tokens are older only after a resume with a smaller max_staleness.
        """
        return None if self.late == "keep" else version - self.max_staleness

    @property
    def initial_correction(self) -> list[Correction]:
        """The corrections of the first step; none where the mismatch gate may switch them on later."""
        return [] if self.mismatch.action == "correct" else list(self.correction.values())

    @property
    def deciding_reward(self) -> str:
        """Name of the reward that decides if a completion is right: `evaluate.reward`, or else the first reward."""
        return self.evaluate.reward or next(iter(self.reward.terms))

    @property
    def held_out_sets(self) -> dict[str, SetConfig]:
        """Every held-out set by its name, the set of `prompts.heldout` first."""
        return {MAIN_SET: self.evaluate, **self.evaluate.sets}

    @property
    def held_out_sources(self) -> dict[str, Source]:
        """The source of every held-out set, by the set's name."""
        return {MAIN_SET: self.prompts.heldout} | {name: one.source for name, one in self.evaluate.sets.items()}

    @property
    def max_model_len(self) -> int:
        """Tokens of the longest prompt with the longest completion, of training or of a held-out set."""
        set_tokens = [settings.max_tokens or 0 for settings in self.held_out_sets.values()]
        return self.prompts.max_tokens + max(self.rollout.max_tokens, *set_tokens)
