"""Advantages of whole steps: trajectories that are excluded, and normalisation over the step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlframe.algorithm import DAPO, ReinforcePP, rate
from rlframe.algorithm.rate import has_signal
from rlframe.types import ScoredGroup
from tests.tiny.groups import make_group, make_multi_turn_group, make_turn

DAPO_ = DAPO(name="dapo", clip_low=0.2, clip_high=0.28)
HALF_ROOT = pytest.approx(0.70711, abs=1e-5)  # the better of two, 1 / sqrt(2)


class PerToken(DAPO):
    """Each sampled token's advantage is its number in the trajectory."""

    def advantages(self, group: ScoredGroup) -> list[Tensor]:
        return [torch.arange(length, dtype=torch.float32) for length in group.lengths]


def test_a_trajectory_without_a_reward_has_no_advantage() -> None:
    [rated] = rate([make_group([1.0, None, 0.0], [1, 8, 1])], DAPO_)
    assert rated.advantages == [HALF_ROOT, None, pytest.approx(-0.70711, abs=1e-5)]


def test_a_completion_without_a_token_has_no_advantage() -> None:
    assert rate([make_group([0.0, 1.0, 0.0], [0, 2, 2])], DAPO_)[0].advantages[0] is None


def test_a_group_with_one_verdict_has_no_baseline() -> None:
    assert rate([make_group([1.0, None, None], [5, 5, 5])], DAPO_)[0].advantages == [None, None, None]


def test_rewards_are_normalized_over_the_step_where_asked() -> None:
    # Rewards 1, 1, 1, 0: mean 3/4, deviation over n - 1: 1/2.
    groups = [make_group([1.0, None, 1.0], [1, 1, 1]), make_group([1.0, 0.0], [1, 1])]
    first, second = rate(groups, ReinforcePP(name="reinforce_pp", clip=0.2))
    assert first.advantages == [pytest.approx(0.5, abs=1e-5), None, pytest.approx(0.5, abs=1e-5)]
    assert second.advantages == pytest.approx([0.5, -1.5], abs=1e-5)


def test_an_algorithm_sees_verdicts_lengths_and_finish_reasons() -> None:
    received: list[ScoredGroup] = []

    class Watching(DAPO):
        def advantages(self, group: ScoredGroup) -> Tensor:
            received.append(group)
            return torch.zeros(2)

    rate([make_group([1.0, None, 0.5], [3, 8, 1])], Watching(name="dapo", clip_low=0.2, clip_high=0.2))
    [group] = received
    assert (group.rewards, group.lengths, group.finish_reasons) == ([1.0, 0.5], [3, 1], ["stop", "stop"])
    assert [verdict.score for verdict in group.verdicts["math"]] == [1.0, 0.5]


def test_an_algorithm_may_give_every_token_an_advantage() -> None:
    turns = [make_turn(None, [1, 2], [5, 6]), make_turn(0, [3], [7])]
    group = make_multi_turn_group([turns, [make_turn(None, [1, 2], [8])]], [1.0, 0.0])
    [rated] = rate([group], PerToken(name="dapo", clip_low=0.2, clip_high=0.2))
    assert [advantages.tolist() for advantages in rated.advantages] == [[0.0, 1.0, 2.0], [0.0]]


def test_a_wrong_number_of_token_advantages_is_an_error() -> None:
    class Short(DAPO):
        def advantages(self, group: ScoredGroup) -> list[Tensor]:
            return [torch.zeros(1) for _ in group.lengths]

    with pytest.raises(ValueError, match="1 advantages for a trajectory of prompt 'p' with 3 sampled tokens"):
        rate([make_group([1.0, 0.0], [3, 1])], Short(name="dapo", clip_low=0.2, clip_high=0.2))


def test_a_step_without_any_reward_has_no_advantage() -> None:
    assert rate([make_group([None, None], [1, 1])], DAPO_)[0].advantages == [None, None]


def test_signal_is_two_different_rewards() -> None:
    assert has_signal(make_group([1.0, 0.0, None], [1, 1, 1]))
    assert not has_signal(make_group([1.0, 1.0, None], [1, 1, 1]))
    assert not has_signal(make_group([1.0, None, None], [1, 1, 1]))
