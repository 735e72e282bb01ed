"""Advantages of whole steps: trajectories that are excluded, and normalisation over the step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlframe.algorithm import DAPO, Reinforce, ScaleRL, rate
from rlframe.algorithm.rate import Truncated, has_signal
from rlframe.training import GroupRecord
from tests.tiny.groups import (
    make_group,
    make_multi_turn_group,
    make_record,
    make_turn,
    recorded,
    with_token_rewards,
)

DAPO_ = DAPO(name="dapo", clip_low=0.2, clip_high=0.28)
HALF_ROOT = pytest.approx(0.70711, abs=1e-5)  # the better of two, 1 / sqrt(2)


class PerToken(DAPO):
    """Each sampled token's advantage is its number in the trajectory."""

    def advantages(self, group: GroupRecord) -> list[Tensor]:
        return [torch.arange(length, dtype=torch.float32) for length in group.lengths]


def test_a_trajectory_without_a_reward_has_no_advantage() -> None:
    [rated] = rate([make_record([1.0, None, 0.0], [1, 8, 1])], DAPO_)
    assert rated.advantages == [HALF_ROOT, None, pytest.approx(-0.70711, abs=1e-5)]


def test_a_completion_without_a_token_has_no_advantage() -> None:
    assert rate([make_record([0.0, 1.0, 0.0], [0, 2, 2])], DAPO_)[0].advantages[0] is None


def test_a_group_with_one_verdict_has_no_baseline() -> None:
    assert rate([make_record([1.0, None, None], [5, 5, 5])], DAPO_)[0].advantages == [None, None, None]


def test_rewards_are_normalized_over_the_step_where_asked() -> None:
    # Centred rewards 0, 0, 1/2, -1/2: deviation over n - 1: 0.40825.
    groups = [make_record([1.0, None, 1.0], [1, 1, 1]), make_record([1.0, 0.0], [1, 1])]
    first, second = rate(groups, ScaleRL(name="scalerl", cap=5.0))
    assert first.advantages == [0.0, None, 0.0]
    assert second.advantages == pytest.approx([1.22474, -1.22474], abs=1e-4)


def test_an_algorithm_sees_verdicts_lengths_and_finish_reasons() -> None:
    received: list[GroupRecord] = []

    class Watching(DAPO):
        def advantages(self, group: GroupRecord) -> Tensor:
            received.append(group)
            return torch.zeros(2)

    rate([make_record([1.0, None, 0.5], [3, 8, 1])], Watching(name="dapo", clip_low=0.2, clip_high=0.2))
    [group] = received
    assert (group.rewards, group.lengths, group.finish_reasons) == ([1.0, 0.5], [3, 1], ["stop", "stop"])
    assert [verdict.score for verdict in group.verdicts["math"]] == [1.0, 0.5]


def test_an_algorithm_may_give_every_token_an_advantage() -> None:
    turns = [make_turn(None, [1, 2], [5, 6]), make_turn(0, [3], [7])]
    group = recorded(make_multi_turn_group([turns, [make_turn(None, [1, 2], [8])]], [1.0, 0.0]))
    [rated] = rate([group], PerToken(name="dapo", clip_low=0.2, clip_high=0.2))
    assert [advantages.tolist() for advantages in rated.advantages] == [[0.0, 1.0, 2.0], [0.0]]


def test_a_wrong_number_of_token_advantages_is_an_error() -> None:
    class Short(DAPO):
        def advantages(self, group: GroupRecord) -> list[Tensor]:
            return [torch.zeros(1) for _ in group.lengths]

    with pytest.raises(ValueError, match="1 advantages for a trajectory of prompt 'p' with 3 sampled tokens"):
        rate([make_record([1.0, 0.0], [3, 1])], Short(name="dapo", clip_low=0.2, clip_high=0.2))


def test_a_step_without_any_reward_has_no_advantage() -> None:
    assert rate([make_record([None, None], [1, 1])], DAPO_)[0].advantages == [None, None]


def test_signal_is_two_different_rewards() -> None:
    assert has_signal(make_record([1.0, 0.0, None], [1, 1, 1]), DAPO_, "train")
    assert not has_signal(make_record([1.0, 1.0, None], [1, 1, 1]), DAPO_, "train")
    assert not has_signal(make_record([1.0, None, None], [1, 1, 1]), DAPO_, "train")


def test_an_algorithm_that_compares_nothing_takes_a_single_completion() -> None:
    plain = Reinforce(name="reinforce")
    assert rate([make_record([1.0], [3])], plain)[0].advantages == [1.0]
    assert rate([make_record([0.5, None], [1, 1])], plain)[0].advantages == [0.5, None]


def cut_off(rewards: list[float | None], *indices: int) -> GroupRecord:
    """A group of which the completions at `indices` reached the length limit."""
    return make_record(rewards, [1] * len(rewards), cut_off=indices)


def test_masked_completions_count_in_the_baseline_only() -> None:
    group = cut_off([1.0, 0.0, 0.0, 0.0], 3)  # mean 1/4, sample deviation 1/2
    assert rate([group], DAPO_, "train")[0].advantages == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)
    masked = rate([group], DAPO_, "mask")[0].advantages
    assert masked[:3] == pytest.approx([1.5, -0.5, -0.5], abs=1e-5)
    assert masked[3] is None


def test_dropped_completions_count_nowhere() -> None:
    dropped = rate([cut_off([1.0, 0.0, 0.0, 0.0], 2, 3)], DAPO_, "drop")[0].advantages
    assert dropped[:2] == [HALF_ROOT, pytest.approx(-0.70711, abs=1e-5)]  # as a group of two
    assert dropped[2:] == [None, None]
    alone, _ = rate([cut_off([1.0, 0.0, 0.0], 1, 2), cut_off([1.0, 0.0])], DAPO_, "drop")
    assert alone.advantages == [None, None, None]


@pytest.mark.parametrize("truncated", ["mask", "drop"])
def test_a_step_of_cut_off_completions_has_advantage_0(truncated: Truncated) -> None:
    first, second = rate([cut_off([1.0, 0.0], 0, 1), cut_off([1.0, None], 0)], DAPO_, truncated)
    assert (first.advantages, second.advantages) == ([0.0, 0.0], [0.0, None])


def test_signal_needs_a_completion_with_a_loss() -> None:
    only_best_was_cut = cut_off([1.0, 0.0, 0.0], 0)
    assert has_signal(only_best_was_cut, DAPO_, "train")
    assert has_signal(only_best_was_cut, DAPO_, "mask")
    assert not has_signal(only_best_was_cut, DAPO_, "drop")
    assert not has_signal(cut_off([1.0, 0.0], 0, 1), DAPO_, "mask")


def taught(rewards: list[float | None], *cut_off_indices: int) -> GroupRecord:
    """Completions of a token, each with a reward for its token."""
    scored = make_group(rewards, [1] * len(rewards), cut_off=cut_off_indices)
    return recorded(with_token_rewards(scored, [[0.5]] * len(rewards)))


def test_rewards_of_tokens_need_neither_a_baseline_nor_other_rewards() -> None:
    assert rate([taught([1.0, None])], DAPO_)[0].advantages == [0.0, None]  # one is left, and compares with nothing
    assert has_signal(taught([1.0, 1.0]), DAPO_, "train") and has_signal(taught([1.0, None]), DAPO_, "train")
    assert not has_signal(taught([None, None]), DAPO_, "train")
    assert not has_signal(taught([1.0, 1.0], 0, 1), DAPO_, "mask")


def test_a_step_of_cut_off_completions_ignores_the_rewards_of_their_tokens() -> None:
    (rated,) = rate([taught([1.0, 0.0], 0, 1)], DAPO_, "mask")
    assert rated.advantages == [0.0, 0.0]
    assert [trajectory.token_reward for trajectory in rated.scored.trajectories] == [None, None]
