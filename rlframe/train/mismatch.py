"""`MismatchGate`: a run's reaction when engine and learner disagree on the probabilities of tokens.

The kernels of engine and learner round differently, so they never agree exactly. Beyond a bound something is broken
(a weight that did not arrive, an expert routed elsewhere), and the policy learns from wrong ratios.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlframe.errors import RunFailed

if TYPE_CHECKING:
    from rlframe.config.train import MismatchConfig
    from rlframe.learner.group import LearnerGroup
    from rlframe.objective.correction import Correction
    from rlframe.record.console import Console


class MismatchGate:
    """Judges every step whose tokens were all sampled by the policy that was trained. Stale tokens differ anyway."""

    def __init__(
        self, config: MismatchConfig, corrections: Sequence[Correction], learner: LearnerGroup, console: Console
    ) -> None:
        """`corrections`: switched on by `mismatch.action=correct`."""
        self.config = config
        self.corrections = corrections
        self.learner = learner
        self.console = console
        self._warned = False  # since the last step within the bounds
        self._correcting = False

    def judge(self, step: int, metrics: dict[str, float]) -> None:
        """Warns, switches the correction on, or raises RunFailed with the figures, as the config says."""
        problem = excess(metrics, self.config)
        if problem is None:
            self._warned = False
            return
        match self.config.action:
            case "stop":
                raise RunFailed(
                    f"step {step}: engine and learner no longer agree: {problem}. Are the engine's dtype, head and "
                    "attention the learner's? mismatch.action=correct goes on with a correction"
                )
            case "correct":
                if not self._correcting:
                    self._switch_on_correction()
                    names = ", ".join(correction.name for correction in self.corrections)
                    self.console.warn(f"step {step}: {problem}; from now on corrected ({names})")
            case "warn":
                if not self._warned:
                    self.console.warn(f"step {step}: engine and learner disagree: {problem}")
                self._warned = True

    def state(self) -> dict[str, Any]:
        """The part of a checkpoint."""
        return {"warned": self._warned, "correcting": self._correcting}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`: a correction that was on is on again, if the config still says `correct`."""
        self._warned = state["warned"]
        if state["correcting"] and self.config.action == "correct":
            self._switch_on_correction()

    def _switch_on_correction(self) -> None:
        self._correcting = True
        self.learner.correct(self.corrections)


def excess(metrics: dict[str, float], config: MismatchConfig) -> str | None:
    """The figures beyond a bound, in words; None without any, and for a step with stale tokens."""
    if metrics.get("rollout/staleness_max") != 0:
        return None
    bounds = {"mismatch/k3": ("max_k3", config.max_k3), "mismatch/abs_mean": ("max_abs_mean", config.max_abs_mean)}
    violations = [
        f"{key} {metrics[key]:.3g} > {bound:g} (mismatch.{name})"
        for key, (name, bound) in bounds.items()
        if not metrics[key] <= bound  # NaN is beyond every bound
    ]
    return ", ".join(violations) or None
