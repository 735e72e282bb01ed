"""The gate on train/rollout mismatch: what a run does when engine and learner no longer agree on a token's probability.

They never agree quite: their kernels round differently. Beyond a bound something is broken (a weight that did not
arrive, an expert routed elsewhere), and the policy learns from ratios that are not its own.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

from rlframe.errors import RunFailed

if TYPE_CHECKING:
    from pathlib import Path

    from rlframe.config.train import MismatchConfig
    from rlframe.learner.group import LearnerGroup
    from rlframe.objective.correction import Correction
    from rlframe.record.console import Console


class MismatchGate:
    """Looks at every step whose tokens were all drawn by the very policy that was trained: older ones differ anyway."""

    def __init__(
        self, config: MismatchConfig, correction: Correction | None, learner: LearnerGroup, console: Console
    ) -> None:
        self.config = config
        self.correction = correction
        self.learner = learner
        self.console = console
        self._told = False

    def judge(self, step: int, metrics: dict[str, float]) -> None:
        """Warns, switches the correction on, or raises RunFailed with the figures, as the config says."""
        found = excess(metrics, self.config)
        if found is None:
            self._told = False
            return
        match self.config.action:
            case "stop":
                raise RunFailed(
                    f"step {step}: engine and learner no longer agree: {found}. Are the engine's dtype, head and "
                    "attention the learner's? mismatch.action=correct goes on with a correction"
                )
            case "correct":
                if self.learner.objective.correction is None:
                    self.learner.correct(self.correction)
                    self.console.warn(f"step {step}: {found}; from now on corrected ({self._correction_name()})")
            case "warn":
                if not self._told:
                    self.console.warn(f"step {step}: engine and learner disagree: {found}")
                self._told = True

    def resume(self, metrics_jsonl: Path) -> None:
        """Stands where the run stood that wrote these metrics: a correction that was switched on is on again."""
        if self.config.action != "correct" or not metrics_jsonl.exists():
            return
        rows = [json.loads(line) for line in metrics_jsonl.read_text().splitlines()]
        # What was no finite number is null there.
        measured = [{key: math.nan if value is None else value for key, value in row.items()} for row in rows]
        if any(excess(row, self.config) for row in measured):
            self.learner.correct(self.correction)

    def _correction_name(self) -> str:
        return self.correction.name if self.correction else "none"


def excess(metrics: dict[str, float], config: MismatchConfig) -> str | None:
    """The figures beyond their bounds, in words; None where there are none, or the step's tokens are stale."""
    if metrics.get("rollout/staleness_max") != 0:
        return None
    bounds = {"mismatch/k3": ("max_k3", config.max_k3), "mismatch/abs_mean": ("max_abs_mean", config.max_abs_mean)}
    beyond = [
        f"{key} {metrics[key]:.3g} > {bound:g} (mismatch.{name})"
        for key, (name, bound) in bounds.items()
        if not metrics[key] <= bound  # NaN is beyond every bound
    ]
    return ", ".join(beyond) or None
