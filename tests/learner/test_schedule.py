"""Learning rate by step."""

import pytest

from rlframe.learner.schedule import learning_rate


def rates(schedule, warmup_steps: float = 0, steps: int = 4, upto: int = 4, floor: float = 0.0) -> list[float]:
    return [
        learning_rate(step, peak=8.0, floor=floor, schedule=schedule, warmup_steps=warmup_steps, steps=steps)
        for step in range(upto)
    ]


def test_a_constant_rate_is_its_peak_from_the_first_step():
    assert rates("constant") == [8, 8, 8, 8]


def test_a_warm_up_of_four_steps_rises_by_quarters_and_starts_above_0():
    assert rates("constant", warmup_steps=4, steps=6, upto=6) == [2, 4, 6, 8, 8, 8]


def test_linear_falls_by_quarters_and_reaches_0_after_the_last_step():
    assert rates("linear", upto=5) == [8, 6, 4, 2, 0]
    assert rates("linear", warmup_steps=2, steps=6, upto=7) == [4, 8, 8, 6, 4, 2, 0]


def test_cosine_falls_to_half_its_peak_half_way_through():
    assert rates("cosine", upto=5) == pytest.approx([8, 6.8284, 4, 1.1716, 0], abs=1e-4)  # 4 +- 2 sqrt(2)


def test_a_run_that_ends_within_its_warm_up_never_divides_by_0():
    assert rates("cosine", warmup_steps=4, steps=4) == [2, 4, 6, 8]
    assert learning_rate(4, peak=8.0, floor=0.0, schedule="linear", warmup_steps=4, steps=4) == 8


def test_a_schedule_falls_to_its_floor_and_warms_up_from_0():
    assert rates("linear", warmup_steps=2, steps=6, upto=7, floor=4.0) == [4, 8, 8, 7, 6, 5, 4]
    assert rates("cosine", upto=5, floor=4.0) == pytest.approx([8, 7.4142, 6, 4.5858, 4], abs=1e-4)  # 6 +- sqrt(2)
    assert rates("constant", floor=4.0) == [8, 8, 8, 8]


def test_a_warm_up_below_1_is_a_share_of_all_steps():
    assert rates("linear", warmup_steps=0.4, steps=5, upto=5) == rates("linear", warmup_steps=2, steps=5, upto=5)
    assert rates("constant", warmup_steps=0.03, steps=5, upto=5) == [8] * 5
