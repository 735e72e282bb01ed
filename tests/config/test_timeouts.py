"""A reward's call ends by its own limits before the worker that makes it counts as hung."""

import re

import pytest

from rlframe.config.compose import load
from rlframe.errors import ConfigError


@pytest.mark.parametrize("reward", ["code_format", "math_code", "math_format"])
def test_the_shipped_limits_of_programs_fit_the_timeout(composed, reward):
    assert load(composed(f"reward={reward}")).reward.timeout_s == 120.0


def test_programs_that_may_outlast_the_timeout_are_refused(composed):
    # 3 s of wall time for each CPU second, and 10 s for the start: 3 * 40 + 10 = 130.
    message = "reward: timeout_s: 120 s are too short for terms.code, whose settings allow a call 130 s"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}.*use a longer timeout_s, or shorter limits in"):
        load(composed("reward=code_format", "reward.terms.code.program_s=40.0"))
    fitting = composed("reward=code_format", "reward.terms.code.program_s=40.0", "reward.timeout_s=131.0")
    assert load(fitting).reward.timeout_s == 131.0
