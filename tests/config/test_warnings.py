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
