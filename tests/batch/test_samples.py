"""From scored groups to packed batches, with tokens few enough to count."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from rlframe.algorithm import DAPO, GRPO, Algorithm, ReinforcePP
from rlframe.batch.samples import (
    collate,
    deduct,
    group_advantages,
    has_signal,
    shard,
    step_advantages,
    to_minibatches,
    to_probes,
    to_samples,
)
from rlframe.errors import RunFailed
from rlframe.objective import Objective
from rlframe.types import OWN_CHOICE, Completion, Prompt, RolloutGroup, ScoredGroup, TrainSample, Verdict, VersionSpan

BY_SEQUENCE = GRPO(name="grpo", clip=0.2)
BY_TOKEN = DAPO(name="dapo", clip_low=0.2, clip_high=0.28)
HALF_ROOT = 0.70711  # the advantage of the better of two, 1 / sqrt(2)


def completion(tokens: int) -> Completion:
    """Tokens 100, 101, ... with log-probabilities -1, -2, ..."""
    return Completion(
        token_ids=[100 + at for at in range(tokens)],
        logprobs=[-1.0 - at for at in range(tokens)],
        versions=[VersionSpan(version=0, start=0, end=tokens)] if tokens else [],
        text="",
        finish_reason="stop",
    )


def scored(rewards: list[float | None], lengths: list[int], prompt_tokens: int = 2, name: str = "p") -> ScoredGroup:
    prompt = Prompt(id=name, messages=[], token_ids=list(range(1, prompt_tokens + 1)), reference="", task="math")
    verdicts = [
        Verdict(score=None, status="failed", seconds=0.0, detail=f"worker {at} is on fire")
        if reward is None
        else Verdict(score=reward, status="scored", seconds=0.0, detail="")
        for at, reward in enumerate(rewards)
    ]
    group = RolloutGroup(prompt=prompt, completions=[completion(length) for length in lengths])
    return ScoredGroup(group=group, rewards=rewards, verdicts={"math": verdicts})


def sample(tokens: int, name: str = "p", first: int = 0, prompt_tokens: int = 0) -> TrainSample:
    return TrainSample(
        prompt_id=name,
        prompt_tokens=prompt_tokens,
        token_ids=np.arange(first, first + tokens, dtype=np.int32),
        rollout_logprobs=np.full(tokens, -0.5, np.float32),
        advantages=np.ones(tokens, np.float32),
        loss_weights=np.full(tokens, 0.25, np.float32),
    )


def test_a_sample_is_the_prompt_and_its_completion_with_nothing_to_learn_at_the_prompt():
    better, _ = to_samples([scored([1.0, 0.0], [3, 1])], BY_SEQUENCE)
    assert better.token_ids.tolist() == [1, 2, 100, 101, 102]
    assert better.rollout_logprobs.tolist() == [0, 0, -1, -2, -3]
    assert better.advantages.tolist() == pytest.approx([0, 0, HALF_ROOT, HALF_ROOT, HALF_ROOT], abs=1e-5)
    assert better.loss_weights.tolist() == pytest.approx([0, 0, 1 / 6, 1 / 6, 1 / 6])  # 1 of 2 completions, 3 tokens


def test_by_sequence_each_of_four_completions_weighs_a_quarter_by_token_each_of_ten_tokens_a_tenth():
    groups = [scored([1.0, 0.0], [1, 2]), scored([0.0, 1.0], [3, 4])]
    by_sequence = [s.loss_weights.sum() for s in to_samples(groups, BY_SEQUENCE)]
    by_token = [s.loss_weights.sum() for s in to_samples(groups, BY_TOKEN)]
    assert by_sequence == pytest.approx([0.25, 0.25, 0.25, 0.25])
    assert by_token == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_a_completion_without_a_reward_is_in_neither_the_baseline_nor_the_loss():
    groups = [scored([1.0, None, 0.0], [1, 8, 1])]
    assert group_advantages(groups[0], BY_TOKEN) == [
        pytest.approx(HALF_ROOT, abs=1e-5),
        None,
        pytest.approx(-HALF_ROOT, abs=1e-5),
    ]
    assert [s.loss_weights.tolist() for s in to_samples(groups, BY_TOKEN)] == [[0, 0, 0.5], [0, 0, 0.5]]


def test_a_completion_without_a_token_is_left_out_like_one_without_a_reward():
    assert group_advantages(scored([0.0, 1.0, 0.0], [0, 2, 2]), BY_TOKEN)[0] is None
    assert len(to_samples([scored([0.0, 1.0, 0.0], [0, 2, 2])], BY_TOKEN)) == 2


def test_a_group_with_one_verdict_has_no_baseline_and_is_left_out_whole():
    alone = scored([1.0, None, None], [5, 5, 5], name="alone")
    assert group_advantages(alone, BY_TOKEN) == [None, None, None]
    samples = to_samples([alone, scored([1.0, 0.0], [1, 1], name="two")], BY_TOKEN)
    assert [s.prompt_id for s in samples] == ["two", "two"]
    assert [s.loss_weights.sum() for s in samples] == [0.5, 0.5]


def test_a_group_of_equal_rewards_is_no_sample_but_its_tokens_count_in_the_weights():
    samples = to_samples([scored([1.0, 0.0], [1, 1], name="mixed"), scored([1.0, 1.0], [4, 4], name="equal")], BY_TOKEN)
    assert [s.prompt_id for s in samples] == ["mixed", "mixed"]
    assert [s.loss_weights.sum() for s in samples] == pytest.approx([0.1, 0.1])  # of 10 tokens, not of 2


def test_equal_rewards_that_no_float_holds_exactly_are_no_samples_either():
    groups = [scored([0.8] * 7, [1] * 7, name="equal"), scored([1.0, 0.0], [1, 1], name="mixed")]
    assert {s.prompt_id for s in to_samples(groups, BY_TOKEN)} == {"mixed"}


def test_where_nothing_has_signal_all_is_kept_so_that_the_step_is_still_measured():
    samples = to_samples([scored([1.0, 1.0], [2, 2])], BY_TOKEN)
    assert [s.advantages.tolist() for s in samples] == [[0, 0, 0, 0]] * 2
    assert [s.loss_weights.sum() for s in samples] == [0.5, 0.5]


def test_an_algorithm_whose_loss_goes_beyond_the_advantage_gets_every_sample():
    class WithMore(DAPO):
        skips_zero_advantage = False

    algorithm: Algorithm = WithMore(name="dapo", clip_low=0.2, clip_high=0.28)
    assert len(to_samples([scored([1.0, 0.0], [1, 1]), scored([1.0, 1.0], [4, 4])], algorithm)) == 4


def test_an_algorithm_can_normalise_over_the_step_and_what_has_no_reward_stays_out():
    algorithm = ReinforcePP(name="reinforce_pp", clip=0.2)
    groups = [scored([1.0, None, 1.0], [1, 1, 1]), scored([1.0, 0.0], [1, 1])]
    # Rewards 1, 1, 1, 0: mean 3/4, deviation over n - 1: 1/2.
    rows = step_advantages(groups, algorithm)
    assert [len(row) for row in rows] == [3, 2] and rows[0][1] is None
    assert [advantage for row in rows for advantage in row if advantage is not None] == pytest.approx(
        [0.5, 0.5, 0.5, -1.5], abs=1e-5
    )
    assert [s.advantages[-1] for s in to_samples(groups, algorithm)] == pytest.approx([0.5, 0.5, 0.5, -1.5], abs=1e-5)


def test_minibatches_are_parts_of_the_prompts_each_a_mean_of_its_own():
    groups = [scored([1.0, 0.0], [1, length], name=f"p{length}") for length in (1, 3, 4, 9)]
    parts = to_minibatches(groups, Objective(algorithm=BY_TOKEN), 2)
    assert [[s.prompt_id for s in part] for part in parts] == [["p1", "p1", "p3", "p3"], ["p4", "p4", "p9", "p9"]]
    assert [sum(float(s.loss_weights.sum()) for s in part) for part in parts] == pytest.approx([1.0, 1.0])
    assert parts[0][0].loss_weights[-1] == pytest.approx(1 / 6)  # of the part's 6 tokens


def test_advantages_are_normalised_over_the_step_before_it_is_cut():
    algorithm = ReinforcePP(name="reinforce_pp", clip=0.2)
    groups = [scored([1.0, 1.0], [1, 1]), scored([1.0, 0.0], [1, 1])]
    parts = to_minibatches(groups, Objective(algorithm=algorithm), 2)
    assert [[s.advantages[-1] for s in part] for part in parts] == [
        pytest.approx([0.5, 0.5], abs=1e-5),
        pytest.approx([0.5, -1.5], abs=1e-5),
    ]


def test_a_minibatch_in_which_every_reward_failed_is_no_update():
    groups = [scored([None, None], [1, 1], name="failed"), scored([1.0, 0.0], [1, 1], name="two")]
    assert [[s.prompt_id for s in part] for part in to_minibatches(groups, Objective(algorithm=BY_TOKEN), 2)] == [
        ["two", "two"]
    ]


def test_an_entropy_bonus_keeps_completions_of_advantage_0():
    groups = [scored([1.0, 0.0], [1, 1]), scored([1.0, 1.0], [4, 4])]
    assert [len(part) for part in to_minibatches(groups, Objective(algorithm=BY_TOKEN), 1)] == [2]
    assert [len(part) for part in to_minibatches(groups, Objective(algorithm=BY_TOKEN, entropy_bonus=0.1), 1)] == [4]


def test_a_penalty_is_taken_off_the_rewards_of_the_completions_that_have_one():
    groups = [scored([1.0, None], [2, 2]), scored([0.5, 0.0], [3, 0])]
    probes = to_probes(groups)
    assert list(probes) == [(0, 0), (1, 0)]
    assert probes[1, 0].loss_weights.tolist() == [0, 0, 1, 1, 1]
    deducted = deduct(groups, {(0, 0): 0.25, (1, 0): -0.125})
    assert [group.rewards for group in deducted] == [[0.75, None], [0.625, 0.0]]
    assert groups[0].rewards == [1.0, None]


def test_where_every_reward_failed_the_error_has_the_first_one_s_own_words():
    with pytest.raises(RunFailed, match=r"none of 2 groups .* 4 verdicts failed; the first: worker 0 is on fire"):
        to_samples([scored([None, None], [1, 1]), scored([None, None], [1, 1])], BY_TOKEN)
    with pytest.raises(RunFailed, match="every completion is empty"):
        to_samples([scored([1.0, 0.0], [0, 0])], BY_TOKEN)


def test_signal_is_two_different_rewards_and_a_missing_one_is_none():
    assert has_signal(scored([1.0, 0.0, None], [1, 1, 1]))
    assert not has_signal(scored([1.0, 1.0, None], [1, 1, 1]))
    assert not has_signal(scored([1.0, None, None], [1, 1, 1]))


def lognormal_trace(count: int) -> list[TrainSample]:
    """Lengths of median 1k, sigma 1, cut off at 16k: a few sequences hold much of the tokens."""
    lengths = np.random.default_rng(0).lognormal(np.log(1000), 1.0, count).clip(1, 16_000).astype(int)
    return [sample(length, name=f"p{at}") for at, length in enumerate(lengths)]


def tokens(batch: list[TrainSample]) -> int:
    return sum(len(s.token_ids) for s in batch)


@pytest.mark.parametrize("count", [64, 256, 1024])
def test_four_ranks_get_a_long_tailed_step_in_equal_shares_within_a_twentieth(count):
    samples = lognormal_trace(count)
    shares = shard(samples, ranks=4, max_tokens=16_000)
    of_rank = [sum(tokens(batch) for batch in share) for share in shares]
    assert max(of_rank) / np.mean(of_rank) <= 1.05
    assert len({len(share) for share in shares}) == 1
    assert max(tokens(batch) for share in shares for batch in share) <= 16_000
    placed = sorted(s.prompt_id for share in shares for batch in share for s in batch)
    assert placed == sorted(s.prompt_id for s in samples)


def test_a_step_that_fits_takes_one_micro_batch_a_rank_and_one_token_more_takes_two():
    assert [len(share) for share in shard([sample(5), sample(5), sample(5), sample(5)], 2, max_tokens=10)] == [1, 1]
    assert [len(share) for share in shard([sample(5), sample(5), sample(5), sample(6)], 2, max_tokens=10)] == [2, 2]


def test_where_samples_do_not_fit_as_the_sum_says_ranks_still_agree_on_the_number_of_micro_batches():
    shares = shard([sample(6) for _ in range(5)], ranks=2, max_tokens=10)  # 30 tokens: 2 batches a rank by the sum
    assert [[tokens(batch) for batch in share] for share in shares] == [[6, 6, 6], [6, 6, 6]]


def test_a_rank_without_work_gets_the_shortest_sample_with_weight_0():
    shares = shard([sample(7, name="long"), sample(3, name="short")], ranks=4, max_tokens=8)
    batches = [batch for share in shares for batch in share]
    assert [(b[0].prompt_id, b[0].loss_weights.sum()) for b in batches] == [
        ("long", 1.75),
        ("short", 0.75),
        ("short", 0.0),
        ("short", 0.0),
    ]


def test_the_same_samples_in_another_order_make_the_same_shares():
    def names(shares: list[list[list[TrainSample]]]) -> list[list[list[str]]]:
        return [[[s.prompt_id for s in batch] for batch in share] for share in shares]

    samples = lognormal_trace(64)
    assert names(shard(samples, 4, 16_000)) == names(shard(samples[::-1], 4, 16_000))


def test_a_sequence_longer_than_a_micro_batch_is_an_error_that_says_what_to_change():
    text = (
        r"prompt long@0 has 11 tokens, more than learner\.micro_batch_tokens=10: raise it, or lower rollout\.max_tokens"
    )
    with pytest.raises(ValueError, match=text):
        shard([sample(11, name="long@0"), sample(2)], ranks=1, max_tokens=10)


def test_a_batch_is_its_sequences_end_to_end_each_counted_from_0():
    batch = collate([sample(3, first=10), sample(2, first=20)])
    assert batch.token_ids.tolist() == [10, 11, 12, 20, 21]
    assert batch.sequence_ids.tolist() == [0, 0, 0, 1, 1]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 1]
    assert batch.loss_weights.tolist() == [0.25] * 5
    assert batch.old_logprobs.tolist() == batch.rollout_logprobs.tolist() == [-0.5] * 5
    assert (batch.token_ids.dtype, batch.advantages.dtype) == (torch.int64, torch.float32)


def behind(prompt: list[int], completion: list[int], name: str) -> TrainSample:
    """A sample whose prompt and completion have these tokens."""
    return replace(
        sample(len(prompt) + len(completion), name=name, prompt_tokens=len(prompt)),
        token_ids=np.array(prompt + completion, np.int32),
    )


def test_what_prompts_begin_alike_with_stands_once_in_the_first_of_them():
    batch = collate(
        [
            behind([1, 2, 3, 4], [50], "a"),
            behind([1, 2, 3, 4], [60, 61], "a"),
            behind([1, 2, 3, 5, 6], [70], "b"),
            behind([1, 2, 3, 5, 6], [70, 71], "b"),  # also what completions begin alike with is each one's own
            behind([1, 2, 3], [80], "c"),
            behind([9, 2, 3], [90], "d"),
        ]
    )
    assert batch.token_ids.tolist() == [1, 2, 3, 4, 50, 60, 61, 5, 6, 70, 70, 71, 80, 9, 2, 3, 90]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 4, 4, 5, 3, 4, 5, 5, 6, 3, 0, 1, 2, 3]
    assert batch.sequence_ids.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 5, 5]


@pytest.mark.parametrize("own, begin", [(12, 1), (13, 0)])
def test_a_sixteenth_of_a_sequence_is_worth_sharing_and_less_is_not(own, begin):
    batch = collate([behind([1, 2, 3, 4], [50], "a"), behind([1, 7, 8, 9], [60] * own, "b")])
    assert int(batch.position_ids[5]) == begin


def test_prompts_that_begin_alike_stand_side_by_side_in_a_micro_batch():
    prompts = {"a": [1, 2, 3], "b": [7, 8, 9], "c": [1, 2, 4], "d": [7, 8, 6]}
    samples = [behind(prompt, [50], name) for name, prompt in prompts.items() for _ in range(2)]
    [[batch]] = shard(samples, ranks=1, max_tokens=100)
    assert [one.prompt_id for one in batch] == list("aaccddbb")
    assert [len(collate(batch, share).token_ids) for share in (True, False)] == [4 + 1 + 2 + 1 + 4 + 1 + 2 + 1, 32]


def test_recorded_routes_follow_their_tokens_through_packing_and_stop_before_the_last():
    told, silent = to_samples([scored([1.0, 0.0], [3, 1])], BY_SEQUENCE)
    routes = np.arange(8, dtype=np.uint8).reshape(4, 1, 2)  # of prompt 1, 2 and of 100, 101: 102 was never fed
    told = replace(told, routed_experts=routes)
    batch = collate([told, silent])
    assert batch.token_ids.tolist() == [1, 2, 100, 101, 102, 100]
    assert batch.routed_experts is not None and batch.routed_experts.dtype == torch.int16
    own = [OWN_CHOICE, OWN_CHOICE]
    assert batch.routed_experts[:, 0].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], own, own]
    # The second of one prompt holds only what comes after it.
    assert collate([silent, told]).routed_experts[:, 0].tolist() == [own, own, own, [4, 5], [6, 7], own]


def test_without_recorded_routes_a_batch_has_none():
    assert collate(to_samples([scored([1.0, 0.0], [3, 1])], BY_SEQUENCE)).routed_experts is None
