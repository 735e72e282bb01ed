"""Each series that a status tells is in the table of names, with its tag."""

from __future__ import annotations

from pathlib import Path

from rlframe.record.operator_metrics import METRICS, OF_STEP, VERDICTS, values
from rlframe.record.outages import ROLES, Outages
from rlframe.record.status import WaitStatus
from tests.tiny.status import make_status

STATES = {"wanted": 4, "starting": 1, "joining": 0, "serving": 3, "leaving": 0}
PROMPTS = {"open": 40, "ready": 8, "no_signal": 1, "taken": 64, "dropped": 2, "given_up": 0}


def full_status():
    return make_status(
        metrics=dict.fromkeys(OF_STEP.values(), 0.5),
        engine_states=STATES,
        prompt_states=PROMPTS,
        verdicts=dict.fromkeys(VERDICTS, 7),
        waits=[
            WaitStatus(text="rollout", seconds=90.0, unmoved_s=12.0, bound_s=600.0),
            WaitStatus(text="reward", seconds=50.0, unmoved_s=31.0, bound_s=600.0),
        ],
        outages=Outages(seconds=200.0, lost_s=50.0),
    )


def test_a_full_status_has_every_series_of_the_table():
    series = {(metric.name, tag) for metric in METRICS for tag in next(iter(metric.tags.values()), ("",))}
    assert values(full_status()).keys() == series


def test_the_values_are_those_of_the_status():
    found = values(full_status())
    assert found["rlframe_step", ""] == 6
    assert found["rlframe_engines", "serving"] == 3
    assert found["rlframe_prompts", "taken"] == 64
    assert found["rlframe_effective_time", ""] == 0.75
    assert found["rlframe_seconds_since_progress", ""] == 31.0
    assert [found["rlframe_losses_total", role] for role in ROLES] == [0] * 5


def test_the_page_for_operators_has_every_name():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    assert [metric.scraped for metric in METRICS if f"`{metric.scraped}`" not in page] == []


def test_a_figure_that_the_step_lacks_has_no_series():
    assert ("rlframe_reward_mean", "") not in values(make_status(metrics={"reward/mean": None}))
