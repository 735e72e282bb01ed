"""The outcome of a group, by the reward that decides."""

from dataclasses import replace

import pytest

from rlframe.experience.outcome import Outcome, outcome_of
from tests.tiny.groups import make_record, make_verdict


@pytest.mark.parametrize(
    "scores, outcome",
    [
        ([1.0, 1.0], "solved"),
        ([0.9, 0.0], "failed"),
        ([1.0, 0.9], "mixed"),
        ([1.0, None], "solved"),  # a completion without a verdict does not count
        ([None, 0.0], "failed"),
        ([None, None], None),
    ],
)
def test_all_right_is_solved_and_all_wrong_is_failed(scores: list[float | None], outcome: Outcome | None):
    assert outcome_of(make_record(scores, [1, 1]), "math") == outcome


def test_the_first_reward_decides_on_tasks_that_the_named_one_leaves_out():
    verdicts = {"code": [make_verdict(1.0)] * 2, "format": [make_verdict(0.0)] * 2}
    assert outcome_of(replace(make_record([1.0, 1.0], [1, 1]), verdicts=verdicts), "math") == "solved"
