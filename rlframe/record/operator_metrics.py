"""The metrics for operators, by the names under which Prometheus scrapes them from Ray's metrics agents. Pure.

`rlframe_step` is scraped as `ray_rlframe_step{run="first"} 7`: Ray adds its prefix, and labels of node and session.
Dashboards and alerts use these names, so a name stays once it is released.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from rlframe.record.outages import ROLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rlframe.record.status import Status

PREFIX = "ray_"
RUN = "run"  # tag of every metric: the name of run_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorMetric:
    """A metric, and the values of its tags besides `run`."""

    name: str
    kind: Literal["gauge", "counter"] = "gauge"
    help: str
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def scraped(self) -> str:
        return PREFIX + self.name


ENGINE_STATES = {
    "wanted": "that the run wants",
    "starting": "whose actor waits for room in the cluster, or loads the model",
    "joining": "that load the current weights and are compared with a serving engine",
    "serving": "that have work",
    "leaving": "that hand over their completions and end",
}
PROMPT_STATES = {
    "open": "that are being sampled or scored",
    "ready": "whose scored group waits for a step",
    "no_signal": "whose scored group dynamic sampling will drop",
    "taken": "that steps have taken, since the run's first start",
    "dropped": "that dynamic sampling has dropped, likewise",
    "given_up": "that no engine survived, likewise",
}
VERDICTS = ("scored", "unparseable", "timeout", "failed")

METRICS = (
    OperatorMetric(name="rlframe_step", help="The last whole step of the learner."),
    OperatorMetric(name="rlframe_reward_mean", help="Mean reward of the last step's completions."),
    OperatorMetric(
        name="rlframe_engines",
        help=f"Engines: {'; '.join(f'{state}: {text}' for state, text in ENGINE_STATES.items())}.",
        tags={"state": tuple(ENGINE_STATES)},
    ),
    OperatorMetric(
        name="rlframe_prompts",
        help=f"Prompts of the ledger: {'; '.join(f'{state}: {text}' for state, text in PROMPT_STATES.items())}.",
        tags={"state": tuple(PROMPT_STATES)},
    ),
    OperatorMetric(
        name="rlframe_idle_share",
        help="engines: share of the last step's slot time without a completion; learner: share of the last step in "
        "which the learner waited for groups.",
        tags={"role": ("engines", "learner")},
    ),
    OperatorMetric(name="rlframe_staleness_mean", help="Mean age of the last step's tokens, in policy versions."),
    OperatorMetric(name="rlframe_staleness_max", help="Greatest age of the last step's tokens, in policy versions."),
    OperatorMetric(
        name="rlframe_verdicts_total",
        kind="counter",
        help="Verdicts of rewards on finished groups, by status.",
        tags={"status": VERDICTS},
    ),
    OperatorMetric(
        name="rlframe_sync_stall_seconds",
        help="Longest pause of an engine for a load of weights that ended in the last step.",
    ),
    OperatorMetric(name="rlframe_step_seconds", help="Duration of the last step."),
    OperatorMetric(
        name="rlframe_losses_total",
        kind="counter",
        help="Actors and drivers that died, stopped or fell silent, since the run's first start; a lost learner counts "
        "once, whatever its ranks.",
        tags={"role": ROLES},
    ),
    OperatorMetric(
        name="rlframe_recoveries_total",
        kind="counter",
        help="Losses after which a successor works: an engine serves, a learner or a driver has taken the logged steps "
        "again, a worker answers.",
        tags={"role": ROLES},
    ),
    OperatorMetric(
        name="rlframe_late_answers_total",
        kind="counter",
        help="Answers of engines that had left or were lost, which were ignored.",
    ),
    OperatorMetric(
        name="rlframe_effective_time",
        help="Share of the run's seconds, all its drivers together, that was not lost to deaths. Lost: all of the time "
        "without a driver after its death, without a learner, or in steps taken again; else the share of engines that "
        "were lost and are not replaced.",
    ),
    OperatorMetric(
        name="rlframe_seconds_since_progress",
        help="Longest time for which a wait of the driver has not moved: no token, verdict, load or answer of any "
        "actor that it waits for. 0: the driver waits for nobody.",
    ),
)

Series: TypeAlias = tuple[str, str]  # name of a metric, value of its tag besides `run`; "" for a metric without one

OF_STEP: dict[Series, str] = {  # key in metrics.jsonl
    ("rlframe_reward_mean", ""): "reward/mean",
    ("rlframe_idle_share", "engines"): "rollout/slots_idle",
    ("rlframe_idle_share", "learner"): "learner/idle",
    ("rlframe_staleness_mean", ""): "rollout/staleness_mean",
    ("rlframe_staleness_max", ""): "rollout/staleness_max",
    ("rlframe_sync_stall_seconds", ""): "rollout/stall_s",
    ("rlframe_step_seconds", ""): "time/step_s",
}


def values(status: Status) -> dict[Series, float]:
    """The value of every series that a status tells. A figure that the last step lacks is left out."""
    outages = status.outages
    found: dict[Series, float] = {
        ("rlframe_step", ""): status.step,
        ("rlframe_late_answers_total", ""): outages.late_answers,
        ("rlframe_effective_time", ""): outages.effective_time,
        ("rlframe_seconds_since_progress", ""): status.unmoved_s,
    }
    for series, key in OF_STEP.items():
        if (value := status.metrics.get(key)) is not None:
            found[series] = value
    counts: dict[str, Mapping[str, int]] = {
        "rlframe_engines": status.engine_states,
        "rlframe_prompts": status.prompt_states,
        "rlframe_verdicts_total": status.verdicts,
        "rlframe_losses_total": outages.losses,
        "rlframe_recoveries_total": outages.recoveries,
    }
    for name, of_name in counts.items():
        found |= {(name, tag): count for tag, count in of_name.items()}
    return found
