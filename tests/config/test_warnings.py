"""Settings that work, and of which the console warns."""

import re

import pytest

from rlframe.config.compose import load
from rlframe.config.warnings import warnings


@pytest.mark.parametrize(
    "overrides",
    [
        ["algorithm=rloo"],
        ["algorithm=rloo", "max_staleness=1", "correction=tis"],
        ["algorithm=rloo", "max_staleness=1", "correction=icepop"],
        ["algorithm=rloo", "max_staleness=1", "correction=[sequence,tis]"],
        ["algorithm=grpo", "max_staleness=1", "learner.minibatches=2"],
        ["algorithm=grpo", "max_staleness=4", "late=mask", "correction=tis"],
        ["algorithm=grpo", "max_staleness=4", "late=keep", "correction=off_policy_mask"],
    ],
)
def test_tokens_of_older_policies_are_fine_with_a_ratio(composed, overrides):
    assert warnings(load(composed(*overrides))) == []


@pytest.mark.parametrize(
    "overrides, warning",
    [
        (
            ["algorithm=rloo", "max_staleness=1"],
            "max_staleness: 1 trains on tokens of older policies, and rloo has no ratio that makes up for their age; "
            "set correction=tis, or max_staleness=0",
        ),
        (["algorithm=reinforce", "max_staleness=2", "correction=sequence"], "max_staleness: 2 trains on tokens"),
        (
            ["algorithm=rloo", "max_staleness=1", "correction=tis", "mismatch.action=correct"],
            "max_staleness: 1 trains on tokens of older policies, and rloo has no ratio that makes up for their age; "
            "set correction=tis and mismatch.action=warn",
        ),
        (
            ["algorithm=rloo", "correction=tis", "learner.minibatches=2", "learner.epochs=3"],
            "learner.minibatches, learner.epochs: 2 x 3 updates a step move the policy away",
        ),
    ],
)
def test_tokens_of_older_policies_without_a_ratio_are_warned_of(composed, overrides, warning):
    [line] = warnings(load(composed(*overrides)))
    assert re.match(re.escape(warning), line)


@pytest.mark.parametrize(
    "overrides, warning",
    [
        (
            ["max_staleness=4", "late=mask"],
            "max_staleness: 4 trains on tokens up to 4 versions old, and no correction weighs them by the ratio of the "
            "policies; set correction=tis, or max_staleness=1 with late=mask",
        ),
        (["max_staleness=1", "late=keep", "correction=proximal"], "late: keep trains on tokens of any age, and no"),
        (
            ["max_staleness=1", "late=keep", "correction=tis", "mismatch.action=correct"],
            "late: keep trains on tokens of any age, and no correction weighs them by the ratio of the policies; set "
            "correction=tis and mismatch.action=warn",
        ),
        (["algorithm=rloo", "max_staleness=1", "late=mask"], "max_staleness: 1 trains on tokens of older policies"),
    ],
)
def test_late_tokens_without_a_correction_are_warned_of_once(composed, overrides, warning):
    [line] = warnings(load(composed(*overrides)))
    assert re.match(re.escape(warning), line)


def test_slots_below_the_group_size_are_warned_of(composed):
    few = ["rollout.engines=2", "rollout.max_concurrent=3", "rollout.group_size=8"]
    assert warnings(load(composed(*few))) == [
        "rollout.max_concurrent: all engines together generate 6 completions at the same time, fewer than "
        "rollout.group_size=8, so every group waits for its own completions; raise it"
    ]
    assert warnings(load(composed(*few, "rollout.max_concurrent=4"))) == []
