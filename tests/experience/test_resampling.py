"""The bound of dynamic sampling, for steps of 2 prompts."""

from dataclasses import replace

import pytest

from rlframe.errors import RunFailed
from rlframe.experience.resampling import Resampling
from rlframe.training import GroupRecord
from tests.tiny.groups import make_record


def equal(reward: float | None) -> GroupRecord:
    return make_record([reward, reward], [1, 1])


def resampling(max_resampled: float = 2.0) -> Resampling:
    return Resampling(prompts_per_step=2, max_resampled=max_resampled, reward="math")


def ending(*groups: GroupRecord) -> str:
    """The words of the run's end when the bound of 4 groups is passed."""
    counted = resampling()
    with pytest.raises(RunFailed) as failed:
        counted.add(list(groups))
    return str(failed.value)


def test_the_bound_holds_for_each_step_alone():
    counted = resampling()
    counted.add([equal(0.0)] * 4)
    counted.end_step(1)
    counted.add([equal(0.0)] * 3)
    with pytest.raises(RunFailed, match="replaced 5 groups for one step of 2 prompts, more than max_resampled=2 times"):
        counted.add([equal(0.0)] * 2)


def cut_off() -> GroupRecord:
    return make_record([0.0, 0.0], [1, 1], cut_off=[0, 1])


def test_the_end_names_mean_reward_and_shares_of_right_and_wrong():
    message = ending(equal(0.0), equal(0.0), cut_off(), equal(1.0), equal(None))
    # Rewards 0, 0, 0, 1 and none; two completions of ten were cut off.
    assert "mean reward 0.25, 60% of them all wrong, 20% all right, 20% of completions cut off" in message


def test_the_end_names_the_cause_of_most_groups():
    assert "too hard for this model" in ending(*[equal(0.0)] * 3, *[equal(1.0)] * 2)
    assert "prompts.curriculum" in ending(*[equal(1.0)] * 3, *[equal(0.0)] * 2)
    alike = make_record([1.0, 1.0], [1, 1])
    mixed = replace(alike, verdicts={"math": [*equal(1.0).verdicts["math"][:1], *equal(0.0).verdicts["math"][:1]]})
    assert "same score" in ending(*[mixed] * 5)
    assert "raise rollout.max_tokens" in ending(*[cut_off()] * 3, *[equal(0.0)] * 2)


def test_a_streak_of_steps_with_more_than_half_replaced_warns_once():
    counted = resampling(max_resampled=10)
    warnings = []
    for step, replaced in enumerate([2, 3, 5, 2, 4], start=1):  # 2 of 4 groups are not more than half
        counted.add([equal(0.0)] * replaced)
        warnings.append(counted.end_step(step))
    assert [warning is not None for warning in warnings] == [False, True, False, False, True]
    assert warnings[1] == (
        "step 2: dynamic sampling replaced 3 of 5 groups: mean reward 0, 100% of them all wrong, 0% all right, "
        "0% of completions cut off"
    )
