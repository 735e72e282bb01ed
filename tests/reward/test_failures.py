"""Too many failures end a run with their reasons."""

import pytest

from rlframe.reward.failures import LEAST, WINDOW, Failures, RewardsFail
from rlframe.types import Verdict

OK = Verdict(score=0.0, status="scored", seconds=0.0, detail="")


def failed(detail: str) -> Verdict:
    return Verdict(score=None, status="failed", seconds=0.0, detail=detail)


def test_more_failures_than_the_share_end_the_run_with_their_reasons():
    failures = Failures(max_share=0.2)
    for n in range(1, 26):
        failures.note("judge", OK if n % 5 else failed(f"on prompt {n}\nConnectionError: refused"))
    with pytest.raises(RewardsFail) as error:
        failures.note("judge", failed("on prompt 26\nKeyError: 'grade'"))
    assert "reward 'judge' failed on 6 of its last 26 completions, more than reward.max_failed_share=0.2" in str(
        error.value
    )
    assert str(error.value).endswith(
        "5 times: on prompt 25\nConnectionError: refused\n1 times: on prompt 26\nKeyError: 'grade'"
    )


def test_each_reward_has_its_own_share():
    failures = Failures(max_share=0.5)
    for _ in range(LEAST):
        failures.note("math", OK)
    for _ in range(LEAST - 1):
        failures.note("judge", failed("down"))
    with pytest.raises(RewardsFail, match="'judge' failed on 16 of its last 16"):
        failures.note("judge", failed("down"))


def test_only_the_latest_verdicts_count_and_the_first_few_never_do():
    failures = Failures(max_share=0.2)
    for _ in range(3):
        failures.note("math", failed("early"))
    for _ in range(WINDOW):
        failures.note("math", OK)
    for _ in range(WINDOW // 5):
        failures.note("math", failed("late"))
    with pytest.raises(RewardsFail, match=f"failed on 52 of its last {WINDOW}"):
        failures.note("math", failed("late"))


def test_with_a_share_of_one_no_failure_ends_the_run():
    failures = Failures(max_share=1.0)
    for _ in range(WINDOW + 1):
        failures.note("math", failed("always"))


def test_failures_without_a_detail_end_the_run_too():
    failures = Failures(max_share=0.5)
    for _ in range(LEAST - 1):
        failures.note("mine", failed(""))
    with pytest.raises(RewardsFail, match=f"{LEAST} times: no reason given"):
        failures.note("mine", failed(""))
