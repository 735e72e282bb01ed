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


MIN_TOKENS = 64  # of an age: the mean over fewer is not judged, since a single token can be far off by chance


class MismatchGate:
    """Judges every step: tokens of the policy version that is trained, and by wider bounds tokens of older versions.

    The figures are those of a step's first update, because the policy moves with it. Tokens whose log-probabilities are
    not finite are in no figure: the update is skipped because of them, and `learner.max_skipped` ends such a run. A
    step without enough tokens to judge changes nothing here.
    """

    def __init__(
        self, config: MismatchConfig, corrections: Sequence[Correction], learner: LearnerGroup, console: Console
    ) -> None:
        """`corrections`: switched on by `mismatch.action=correct`."""
        self.config = config
        self.corrections = corrections
        self._corrections_at_start = learner.objective.corrections
        self.learner = learner
        self.console = console
        self._warned = False  # since the last step within the bounds
        self._correcting = False

    def judge(self, step: int, metrics: dict[str, float], *, again: bool = False) -> None:
        """Warns, switches the correction on, or raises RunFailed with the figures, as the config says.

        `again`: the step is replayed, so its lines are on the console already.
        """
        warn = (lambda text: None) if again else self.console.warn
        judged = figures(metrics)
        if not judged:
            return
        problem = excess(judged, self.config)
        if problem is None:
            self._warned = False
            return
        match self.config.action:
            case "stop":
                raise RunFailed(
                    f"step {step}: engine and learner no longer agree: {problem}. Are the engine's dtype, head and "
                    "attention the learner's? Stale tokens alone beyond their bounds: lower max_staleness or "
                    "learner.lr, for the policy moves too far. mismatch.action=correct goes on with a correction"
                )
            case "correct":
                if not self._correcting:
                    self._correct(True)
                    names = ", ".join(correction.name for correction in self.corrections)
                    warn(f"step {step}: {problem}; from now on corrected ({names})")
            case "warn":
                if not self._warned:
                    warn(f"step {step}: engine and learner disagree: {problem}")
                self._warned = True

    def state(self) -> dict[str, Any]:
        """The part of a checkpoint."""
        return {"warned": self._warned, "correcting": self._correcting}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`: a correction is on if it was on, and if the config still says `correct`."""
        self._warned = state["warned"]
        self._correct(state["correcting"] and self.config.action == "correct")

    def _correct(self, correcting: bool) -> None:
        if correcting != self._correcting:
            self._correcting = correcting
            self.learner.correct(self.corrections if correcting else self._corrections_at_start)


def figures(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics of a step that are judged: means over at least `MIN_TOKENS` tokens of one age."""
    return {
        key: metrics[key]
        for suffix in ("", "_stale")
        if metrics[f"mismatch/tokens{suffix}"] >= MIN_TOKENS
        for key in (f"mismatch/k3{suffix}", f"mismatch/abs_mean{suffix}")
    }


def excess(figures: dict[str, float], config: MismatchConfig) -> str | None:
    """The figures beyond a bound, in words; None without any.

    >>> excess({"mismatch/k3": 0.02}, config)
    'mismatch/k3 0.02 > 0.015 (mismatch.max_k3)'
    """
    violations = []
    for metric, value in figures.items():
        key = f"max_{metric.removeprefix('mismatch/')}"
        if not value <= (bound := getattr(config, key)):
            violations.append(f"{metric} {value:.3g} > {bound:g} (mismatch.{key})")
    return ", ".join(violations) or None
