"""From rated groups to training samples, with tokens few enough to count."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from rlframe.algorithm import DAPO, GRPO, RLOO, Algorithm, DrGRPO, ReinforcePP, ScaleRL, rate
from rlframe.batch.samples import deduct, in_turn_order, to_minibatches, to_probes, to_samples
from rlframe.batch.sequences import to_train_sample
from rlframe.errors import RunFailed
from rlframe.objective.objective import Objective
from rlframe.training import GroupRecord, PlannedSample, TrainSample
from rlframe.types import RolloutGroup, Turn, VersionSpan
from tests.tiny.groups import (
    make_group,
    make_multi_turn_group,
    make_record,
    make_turn,
    recorded,
    with_token_rewards,
)

BY_SEQUENCE = GRPO(name="grpo", clip=0.2)
BY_TOKEN = DAPO(name="dapo", clip_low=0.2, clip_high=0.28)
HALF_ROOT = 0.70711  # the advantage of the better of two, 1 / sqrt(2)


def built(planned: list[PlannedSample]) -> list[TrainSample]:
    return [to_train_sample(sample, sample.body) for sample in planned]


def minibatches(
    groups: list[GroupRecord], algorithm: Algorithm, count: int = 1, oldest_version: int | None = None, **more: float
) -> list[list[TrainSample]]:
    objective = Objective(algorithm=algorithm, **more)
    return [built(part) for part in to_minibatches(rate(groups, algorithm), objective, count, oldest_version)]


def samples(groups: list[GroupRecord], algorithm: Algorithm, oldest_version: int | None = None) -> list[TrainSample]:
    return minibatches(groups, algorithm, oldest_version=oldest_version)[0]


def test_a_sample_is_a_prompt_and_a_completion() -> None:
    better, _ = samples([make_record([1.0, 0.0], [3, 1])], BY_SEQUENCE)
    assert better.token_ids.tolist() == [1, 2, 100, 101, 102]
    assert better.sampled.tolist() == [False, False, True, True, True]
    assert better.rollout_logprobs.tolist() == [0, 0, -1, -2, -3]
    assert better.advantages.tolist() == pytest.approx([0, 0, HALF_ROOT, HALF_ROOT, HALF_ROOT], abs=1e-5)
    assert better.loss_weights.tolist() == pytest.approx([0, 0, 1 / 6, 1 / 6, 1 / 6])  # 1 of 2 completions, 3 tokens
    assert (better.prompt_id, better.prefix_tokens) == ("p", 2)


def test_every_token_has_the_version_that_sampled_it() -> None:
    scored = make_group([1.0, 0.0], [3, 1])
    group = scored.group
    crossing = replace(
        group.completions[0], versions=[VersionSpan(version=4, start=0, end=2), VersionSpan(version=5, start=2, end=3)]
    )
    scored = replace(scored, group=RolloutGroup.single_turn(group.prompt, [crossing, group.completions[1]]))
    first, second = samples([recorded(scored)], BY_SEQUENCE)
    assert first.versions is not None and second.versions is not None
    assert first.versions.tolist() == [0, 0, 4, 4, 5]
    assert second.versions.tolist() == [0, 0, 0]


def test_completions_weigh_a_quarter_each_or_tokens_a_tenth_each() -> None:
    groups = [make_record([1.0, 0.0], [1, 2]), make_record([0.0, 1.0], [3, 4])]
    by_sequence = [sample.loss_weights.sum() for sample in samples(groups, BY_SEQUENCE)]
    by_token = [sample.loss_weights.sum() for sample in samples(groups, BY_TOKEN)]
    assert by_sequence == pytest.approx([0.25, 0.25, 0.25, 0.25])
    assert by_token == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_token_weights_can_be_a_mean_per_prompt() -> None:
    groups = [make_record([1.0, 0.0], [1, 3]), make_record([0.0, 1.0], [5, 5])]
    found = samples(groups, ScaleRL(name="scalerl", cap=5.0))
    assert [sample.loss_weights.sum() for sample in found] == pytest.approx([1 / 8, 3 / 8, 1 / 4, 1 / 4])


@pytest.mark.parametrize("algorithm", [RLOO(name="rloo"), DrGRPO(name="dr_grpo", clip=0.2, length=7), BY_SEQUENCE])
def test_mean_weights_are_the_loss_weights_scaled_to_the_sum_1(algorithm: Algorithm) -> None:
    groups = [make_record([1.0, 0.0], [1, 3], name="a"), make_record([0.0, 1.0], [4, 8], name="b")]
    for part in minibatches(groups, algorithm, 2):
        loss_weights, mean_weights = (
            np.concatenate([getattr(sample, field) for sample in part]) for field in ("loss_weights", "mean_weights")
        )
        assert mean_weights.sum() == pytest.approx(1.0)
        assert mean_weights == pytest.approx(loss_weights / loss_weights.sum())


def test_a_sum_over_tokens_has_the_mean_weights_of_a_token_mean() -> None:
    found = samples([make_record([1.0, 0.0], [1, 3])], RLOO(name="rloo"))
    assert [sample.loss_weights[-1] for sample in found] == [0.5, 0.5]
    assert [sample.mean_weights.tolist() for sample in found] == [[0, 0, 0.25], [0, 0, 0.25, 0.25, 0.25]]


def test_a_completion_without_a_reward_is_no_sample() -> None:
    found = samples([make_record([1.0, None, 0.0], [1, 8, 1])], BY_TOKEN)
    assert [sample.loss_weights.tolist() for sample in found] == [[0, 0, 0.5], [0, 0, 0.5]]


def test_a_completion_without_a_token_is_no_sample() -> None:
    assert len(samples([make_record([0.0, 1.0, 0.0], [0, 2, 2])], BY_TOKEN)) == 2


def test_a_group_with_one_verdict_is_left_out_whole() -> None:
    groups = [make_record([1.0, None, None], [5, 5, 5], name="alone"), make_record([1.0, 0.0], [1, 1], name="two")]
    found = samples(groups, BY_TOKEN)
    assert [sample.prompt_id for sample in found] == ["two", "two"]
    assert [sample.loss_weights.sum() for sample in found] == [0.5, 0.5]


def test_tokens_of_equal_rewards_count_in_the_weights_only() -> None:
    groups = [make_record([1.0, 0.0], [1, 1], name="mixed"), make_record([1.0, 1.0], [4, 4], name="equal")]
    found = samples(groups, BY_TOKEN)
    assert [sample.prompt_id for sample in found] == ["mixed", "mixed"]
    assert [sample.loss_weights.sum() for sample in found] == pytest.approx([0.1, 0.1])  # of 10 tokens, not of 2


def test_equal_rewards_that_no_float_holds_exactly_are_no_samples() -> None:
    groups = [make_record([0.8] * 7, [1] * 7, name="equal"), make_record([1.0, 0.0], [1, 1], name="mixed")]
    assert {sample.prompt_id for sample in samples(groups, BY_TOKEN)} == {"mixed"}


def test_a_step_without_signal_is_kept_and_measured() -> None:
    found = samples([make_record([1.0, 1.0], [2, 2])], BY_TOKEN)
    assert [sample.advantages.tolist() for sample in found] == [[0, 0, 0, 0]] * 2
    assert [sample.loss_weights.sum() for sample in found] == [0.5, 0.5]


def test_an_algorithm_with_more_in_its_loss_keeps_every_sample() -> None:
    class WithMore(DAPO):
        skips_zero_advantage = False

    algorithm: Algorithm = WithMore(name="dapo", clip_low=0.2, clip_high=0.28)
    assert len(samples([make_record([1.0, 0.0], [1, 1]), make_record([1.0, 1.0], [4, 4])], algorithm)) == 4


def test_an_entropy_bonus_keeps_completions_of_advantage_0() -> None:
    groups = [make_record([1.0, 0.0], [1, 1]), make_record([1.0, 1.0], [4, 4])]
    assert [len(part) for part in minibatches(groups, BY_TOKEN)] == [2]
    assert [len(part) for part in minibatches(groups, BY_TOKEN, entropy_bonus=0.1)] == [4]


def test_minibatches_are_parts_of_the_prompts_and_means_of_their_own() -> None:
    groups = [make_record([1.0, 0.0], [1, length], name=f"p{length}") for length in (1, 3, 4, 9)]
    parts = minibatches(groups, BY_TOKEN, 2)
    ids = [[sample.prompt_id for sample in part] for part in parts]
    assert ids == [["p1", "p1", "p3", "p3"], ["p4", "p4", "p9", "p9"]]
    assert [sum(float(sample.loss_weights.sum()) for sample in part) for part in parts] == pytest.approx([1.0, 1.0])
    assert parts[0][0].loss_weights[-1] == pytest.approx(1 / 6)  # of the minibatch's 6 tokens


def test_advantages_are_normalized_before_the_step_is_cut() -> None:
    # Rewards 1, 1, 1, 0: mean 3/4, deviation sqrt(3) / 4.
    groups = [make_record([1.0, 1.0], [1, 1]), make_record([1.0, 0.0], [1, 1])]
    parts = minibatches(groups, ReinforcePP(name="reinforce_pp", clip=0.2), 2)
    assert [[sample.advantages[-1] for sample in part] for part in parts] == [
        pytest.approx([0.57735, 0.57735], abs=1e-5),
        pytest.approx([0.57735, -1.73205], abs=1e-5),
    ]


def test_a_minibatch_in_which_every_reward_failed_is_no_update() -> None:
    groups = [make_record([None, None], [1, 1], name="failed"), make_record([1.0, 0.0], [1, 1], name="two")]
    assert [[sample.prompt_id for sample in part] for part in minibatches(groups, BY_TOKEN, 2)] == [["two", "two"]]


def test_penalties_are_subtracted_from_rewards_that_exist() -> None:
    groups = [make_record([1.0, None], [2, 2]), make_record([0.5, 0.0], [3, 0])]
    probes = to_probes(groups)
    assert list(probes) == [(0, 0), (1, 0)]
    assert [probe.loss_weights.tolist() for probe in built(probes[1, 0])] == [[0, 0, 1, 1, 1]]
    deducted = deduct(groups, {(0, 0): np.array([0.5, -0.25]), (1, 0): np.array([0.0, -0.125, 0.0])})
    assert [group.rewards for group in deducted] == [[0.75, None], [0.625, 0.0]]
    assert [[values.tolist() for values in group.token_penalties or []] for group in deducted] == [
        [[0.5, -0.25], [0.0, 0.0]],
        [[0.0, -0.125, 0.0], []],
    ]
    assert groups[0].rewards == [1.0, None]


def branching_turns() -> list[Turn]:
    #  0 - 1 - 3    Turn 0 branches into turns 1 and 2, as when a template strips earlier thoughts; turn 4 begins
    #   \- 2        a conversation of its own.
    #  4
    return [
        make_turn(None, [1, 2], [10, 11]),
        make_turn(0, [20], [21]),
        make_turn(0, [30], [31]),
        make_turn(1, [40], [41]),
        make_turn(None, [9], [50]),
    ]


def test_values_of_paths_return_to_the_order_of_turns() -> None:
    group = recorded(make_multi_turn_group([branching_turns()], [1.0]))
    [probes] = to_probes([group]).values()
    trained = [probe.token_ids[probe.loss_weights != 0] for probe in built(probes)]
    assert [ids.tolist() for ids in trained] == [[10, 11, 31], [21, 41], [50]]
    assert in_turn_order(group.trajectories[0], trained).tolist() == [10, 11, 21, 31, 41, 50]


def test_where_every_reward_failed_the_error_quotes_the_first() -> None:
    with pytest.raises(RunFailed, match=r"no completion of 2 groups .* 4 verdicts failed; the first: worker 0 is on"):
        samples([make_record([None, None], [1, 1]), make_record([None, None], [1, 1])], BY_TOKEN)
    with pytest.raises(RunFailed, match="completions are empty"):
        samples([make_record([1.0, 0.0], [0, 0])], BY_TOKEN)


def test_a_step_of_cut_off_completions_is_kept_and_measured() -> None:
    groups = [make_record([1.0, 0.0], [5, 5], cut_off=[0, 1])]
    [part] = map(built, to_minibatches(rate(groups, BY_TOKEN, "mask"), Objective(algorithm=BY_TOKEN), 1))
    assert [sample.advantages.any() for sample in part] == [False, False]
    assert [sample.loss_weights.sum() for sample in part] == [0.5, 0.5]


def test_masked_completions_leave_the_token_weights() -> None:
    groups = [make_record([1.0, 0.0, 0.0], [2, 2, 9], cut_off=[2])]
    [part] = map(built, to_minibatches(rate(groups, BY_TOKEN, "mask"), Objective(algorithm=BY_TOKEN), 1))
    assert [sample.loss_weights.sum() for sample in part] == [0.5, 0.5]
    assert part[0].advantages[-1] == pytest.approx(2 / 3 / np.std([1, 0, 0], ddof=1), abs=1e-5)


def test_a_chain_of_two_turns_is_one_sample_with_a_mask() -> None:
    chain = [make_turn(None, [1, 2], [5, 6]), make_turn(0, [3], [7])]
    group = recorded(make_multi_turn_group([chain, [make_turn(None, [1, 2], [8])]], [1.0, 0.0]))
    first, second = samples([group], BY_TOKEN)
    assert first.token_ids.tolist() == [1, 2, 5, 6, 3, 7]
    assert first.sampled.tolist() == [False, False, True, True, False, True]
    assert first.rollout_logprobs.tolist() == [0, 0, -5, -6, 0, -7]
    assert first.loss_weights.tolist() == [0, 0, 0.25, 0.25, 0, 0.25]  # 4 sampled tokens in the step
    assert (first.prefix_tokens, second.token_ids.tolist()) == (2, [1, 2, 8])


def test_turns_that_two_paths_share_are_trained_on_once() -> None:
    group = recorded(make_multi_turn_group([branching_turns(), [make_turn(None, [1, 2], [8])]], [1.0, 0.0]))
    found = built(to_samples(rate([group], BY_TOKEN), BY_TOKEN))
    ordered = {tuple(sample.token_ids.tolist()): sample for sample in found}
    # Leaves in the order of their turns: 2, 3, 4; so turn 0 is trained on with turn 2.
    assert list(ordered) == [(1, 2, 10, 11, 30, 31), (1, 2, 10, 11, 20, 21, 40, 41), (9, 50), (1, 2, 8)]
    trained = {
        ids: [token for token, weight in zip(ids, sample.loss_weights, strict=True) if weight]
        for ids, sample in ordered.items()
    }
    assert list(trained.values()) == [[10, 11, 31], [21, 41], [50], [8]]
    assert [sample.prefix_tokens for sample in found] == [2, 5, 1, 2]
    assert [sample.prompt_id for sample in found] == ["p", "p#0.1", "p#0.4", "p"]  # the first paths share the prompt


def test_token_advantages_follow_their_tokens_into_every_path() -> None:
    class PerToken(DAPO):
        def advantages(self, group: GroupRecord) -> list[Tensor]:
            return [torch.arange(1, length + 1, dtype=torch.float32) for length in group.lengths]

    tree = [make_turn(None, [1], [10, 11]), make_turn(0, [20], [21]), make_turn(0, [30], [31])]
    group = recorded(make_multi_turn_group([tree, [make_turn(None, [1], [8])]], [1.0, 0.0]))
    found = samples([group], PerToken(name="dapo", clip_low=0.2, clip_high=0.28))
    assert [sample.advantages.tolist() for sample in found] == [[0, 1, 2, 0, 3], [0, 0, 0, 0, 4], [0, 1]]


def aged(versions: list[int]) -> GroupRecord:
    """Two completions with one token of each of these versions, rewards 1 and 0."""
    scored = make_group([1.0, 0.0], [len(versions)] * 2)
    spans = [VersionSpan(version=version, start=at, end=at + 1) for at, version in enumerate(versions)]
    completions = [replace(completion, versions=spans) for completion in scored.group.completions]
    return recorded(replace(scored, group=RolloutGroup.single_turn(scored.group.prompt, completions)))


def test_old_tokens_lose_their_weight_and_the_others_keep_theirs() -> None:
    for algorithm in (BY_SEQUENCE, BY_TOKEN, RLOO(name="rloo")):
        whole, masked = samples([aged([3, 4, 5])], algorithm), samples([aged([3, 4, 5])], algorithm, oldest_version=4)
        for before, after in zip(whole, masked, strict=True):
            assert (after.loss_weights != 0).tolist() == [False, False, False, True, True]
            assert after.loss_weights[3:].tolist() == before.loss_weights[3:].tolist()
            assert after.mean_weights[3:].tolist() == before.mean_weights[3:].tolist()
            assert after.mean_weights[:3].tolist() == [0.0] * 3
            assert after.advantages.tolist() == before.advantages.tolist()


def test_a_sample_of_old_tokens_only_stays_with_weight_0() -> None:
    found = samples([aged([1, 2])], BY_TOKEN, oldest_version=3)
    assert [sample.loss_weights.tolist() for sample in found] == [[0.0] * 4] * 2
    assert [sample.tokens for sample in found] == [4, 4]


def test_rewards_of_tokens_add_to_the_advantage_of_their_tokens() -> None:
    scored = with_token_rewards(make_group([1.0, 0.0], [2, 3]), [[0.5, -0.25], [1.0, 2.0, 3.0]])
    first, second = samples([recorded(scored)], BY_TOKEN)
    assert first.advantages.tolist() == pytest.approx([0, 0, HALF_ROOT + 0.5, HALF_ROOT - 0.25], abs=1e-4)
    assert second.advantages.tolist() == pytest.approx([0, 0, 1 - HALF_ROOT, 2 - HALF_ROOT, 3 - HALF_ROOT], abs=1e-4)


def test_rewards_of_tokens_follow_their_turns_into_every_path() -> None:
    tree = [make_turn(None, [1], [10, 11]), make_turn(0, [20], [21]), make_turn(0, [30], [31])]
    scored = make_multi_turn_group([tree, [make_turn(None, [1], [8])]], [0.0, 0.0])
    found = samples([recorded(with_token_rewards(scored, [[1.0, 2.0, 3.0, 4.0], [5.0]]))], BY_TOKEN)
    assert [sample.advantages.tolist() for sample in found] == [[0, 1, 2, 0, 3], [0, 0, 0, 0, 4], [0, 5]]


def test_a_completion_of_advantage_0_is_kept_for_its_tokens_rewards() -> None:
    equal, unequal = make_record([1.0, 1.0], [1, 1], name="equal"), make_record([1.0, 0.0], [1, 1], name="unequal")
    taught = recorded(with_token_rewards(make_group([1.0, 1.0], [1, 1], name="taught"), [[0.5], [-0.5]]))
    found = samples([equal, unequal, taught], BY_TOKEN)
    assert [sample.prompt_id for sample in found] == ["unequal"] * 2 + ["taught"] * 2
    assert [sample.advantages[-1] for sample in found[2:]] == [0.5, -0.5]


def test_a_record_has_the_sum_of_tokens_rewards_and_not_the_tokens() -> None:
    record = recorded(with_token_rewards(make_group([1.0, 0.0], [2, 1]), [[0.5, -0.25], None]))
    assert [trajectory.token_reward for trajectory in record.trajectories] == [0.25, None]
    assert [verdict.token_rewards for verdict in record.verdicts["teacher/big"]] == [None, None]
