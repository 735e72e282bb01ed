"""`Scale`: the size of a simulated run, and the policy under which it admits prompts and treats old tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from benchmarks.async_parts.trace import CAP, mean_length
from rlframe.cluster.episodes import REST_S
from rlframe.config.run import RunConfig
from rlframe.types import Late

if TYPE_CHECKING:
    from benchmarks.async_parts.engine import TimedEngine


class SimulatedRun(RunConfig):
    """A run without a model and machines: rules about those do not apply."""

    checks: ClassVar = []


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Settings of a run that decide when prompts are admitted and which tokens count."""

    max_staleness: int
    late: Late = "wait"
    ahead: float = 0.1

    def __str__(self) -> str:
        return f"max_staleness={self.max_staleness} late={self.late} ahead={self.ahead:g}"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Engines, batch and speeds of a run. The defaults are those of the published table."""

    engines: int = 8
    slots: int = 64  # completions that an engine samples at the same time
    worker_engines: int = 8  # of an episode worker
    prompts: int = 32  # of a step
    group: int = 16  # completions of a prompt
    steps: int = 200
    token_s: float = 0.001
    slow: float = 1.0  # factor on `token_s` of the first engine
    load_s: float = 0.0  # an engine's pause for new weights
    publish_s: float = 0.0
    reward_s: float = 0.0
    rest_s: float = 0.0  # of an episode worker between news and its report
    learner: float = 1.0  # a step of the learner, in units of `engines_s`
    seed: int = 0

    @cached_property
    def engines_s(self) -> float:
        """Seconds in which all slots sample the tokens of a step, on average, at `token_s` a token."""
        return self.prompts * self.group * mean_length() * self.token_s / (self.engines * self.slots)

    @property
    def step_s(self) -> float:
        """Seconds of the learner's step."""
        return self.learner * self.engines_s

    @property
    def full_slots(self) -> float:
        """Slots of all engines in units of a slot at `token_s` a token."""
        return self.slots * (self.engines - 1 + 1 / self.slow)

    def of_workers(self, engines: list[TimedEngine]) -> dict[str, list[TimedEngine]]:
        """Name of an episode worker -> its engines."""
        starts = range(0, self.engines, self.worker_engines)
        return {f"episodes-{n}": engines[start : start + self.worker_engines] for n, start in enumerate(starts)}

    def run_config(self, policy: Policy, *overrides: str) -> SimulatedRun:
        """The config of a run that admits, takes and rates as the simulation does."""
        import hydra

        from rlframe.config.compose import conf_dir, load

        sizes = [
            f"steps={self.steps}",
            f"prompts_per_step={self.prompts}",
            f"max_staleness={policy.max_staleness}",
            f"late={policy.late}",
            f"seed={self.seed}",
            "correction=tis",
            "run_dir=timed",
            f"rollout.ahead={policy.ahead}",
            f"rollout.engines={self.engines}",
            f"rollout.max_concurrent={self.slots}",
            f"rollout.group_size={self.group}",
            f"rollout.max_tokens={CAP}",
            f"learner.micro_batch_tokens={2 * CAP}",
        ]
        with TemporaryDirectory() as folder, hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            (Path(folder) / "config.json").write_text("{}")
            return load(hydra.compose("train", [f"model.path={folder}", *sizes, *overrides]), SimulatedRun)


# Name -> differences from the defaults of `Scale`.
VARIANTS: dict[str, dict[str, Any]] = {
    "balanced": {},  # a step of the learner takes as long as its completions take the engines
    "learner": {"learner": 1.25},
    "thousand": {"engines": 1000, "prompts": 4000, "steps": 30},
    "slow": {"engines": 16, "prompts": 64, "slow": 10.0, "learner": 1.1},
    # Seconds of a cluster, beside which those of recoveries count. Steps of 130 s, as with 128 prompts x 16
    # on 8 engines x 64 slots, in a 32nd of that size.
    "cluster": {
        "slots": 2,
        "prompts": 16,
        "group": 4,
        "token_s": 0.02,
        "steps": 50,
        "load_s": 2.0,
        "publish_s": 2.0,
        "reward_s": 1.0,
    },
    "real": {"token_s": 0.0005, "worker_engines": 4, "steps": 12, "rest_s": REST_S},
}
