"""From samples to each rank's micro-batches: equal shares, full micro-batches, neighbours with common prefixes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rlframe.algorithm import DAPO, rate
from rlframe.batch.collate import collate, neighbours
from rlframe.batch.samples import to_samples
from rlframe.batch.sequences import to_train_sample
from rlframe.batch.shares import to_shares
from rlframe.training import Packing, TrainSample
from tests.tiny.batches import make_sample
from tests.tiny.groups import plain, recorded
from tests.tiny.trees import make_tree_group

DAPO_ = DAPO(name="dapo", clip_low=0.2, clip_high=0.28)


def lognormal_trace(count: int) -> list[TrainSample]:
    """Lengths of median 1k, sigma 1, cut off at 16k: a few sequences hold much of the tokens."""
    lengths = np.random.default_rng(0).lognormal(np.log(1000), 1.0, count).clip(1, 16_000).astype(int)
    return [make_sample(int(length), name=f"p{index}") for index, length in enumerate(lengths)]


def tokens(batch: list[TrainSample]) -> int:
    return sum(len(sample.token_ids) for sample in batch)


@pytest.mark.parametrize("count", [64, 256, 1024])
def test_four_ranks_get_equal_shares_of_a_long_tailed_step(count: int) -> None:
    samples = lognormal_trace(count)
    shares = to_shares(samples, ranks=4, max_tokens=16_000)
    rank_tokens = [sum(tokens(batch) for batch in share) for share in shares]
    assert max(rank_tokens) / np.mean(rank_tokens) <= 1.05
    assert len({len(share) for share in shares}) == 1
    assert max(tokens(batch) for share in shares for batch in share) <= 16_000
    placed = sorted(sample.prompt_id for share in shares for batch in share for sample in batch)
    assert placed == sorted(sample.prompt_id for sample in samples)


def test_padded_micro_batches_hold_samples_of_similar_length() -> None:
    lengths = [9, 2, 8, 3, 2, 3]
    [rank] = to_shares([make_sample(length) for length in lengths], 1, max_tokens=18, packing="padded")
    assert [[len(sample.token_ids) for sample in batch] for batch in rank] == [[9, 8], [3, 3, 2, 2]]


def test_padded_rows_of_two_ranks_stay_within_the_cells_of_a_micro_batch() -> None:
    samples = lognormal_trace(64)
    shares = to_shares(samples, ranks=3, max_tokens=16_000, packing="padded")
    batches = [batch for share in shares for batch in share]
    assert max(len(batch) * max(len(sample.token_ids) for sample in batch) for batch in batches) <= 16_000
    assert len({len(share) for share in shares}) == 1
    trained = sorted(sample.prompt_id for batch in batches for sample in batch if sample.loss_weights.any())
    assert trained == sorted(sample.prompt_id for sample in samples)


def test_padded_micro_batches_are_halved_until_every_rank_has_one() -> None:
    shares = to_shares([make_sample(5) for _ in range(4)], ranks=3, max_tokens=100, packing="padded")
    assert [[len(batch) for batch in share] for share in shares] == [[1], [1], [2]]


def test_one_token_too_many_takes_a_second_micro_batch() -> None:
    def micro_batches(*lengths: int) -> list[int]:
        return [len(share) for share in to_shares([make_sample(length) for length in lengths], 2, max_tokens=10)]

    assert micro_batches(5, 5, 5, 5) == [1, 1]
    assert micro_batches(5, 5, 5, 6) == [2, 2]


def test_ranks_have_as_many_micro_batches_where_samples_do_not_fit() -> None:
    # 30 tokens would fill 2 micro-batches a rank, but no two samples of 6 fit into 10.
    shares = to_shares([make_sample(6) for _ in range(5)], ranks=2, max_tokens=10)
    assert [[tokens(batch) for batch in share] for share in shares] == [[6, 6, 6], [6, 6, 6]]


def test_a_rank_without_work_gets_the_shortest_sample_with_weight_0() -> None:
    shares = to_shares([make_sample(7, name="long"), make_sample(3, name="short")], ranks=4, max_tokens=8)
    batches = [batch for share in shares for batch in share]
    assert [(batch[0].prompt_id, batch[0].loss_weights.sum()) for batch in batches] == [
        ("long", 1.75),
        ("short", 0.75),
        ("short", 0.0),
        ("short", 0.0),
    ]


def test_the_order_of_samples_does_not_change_the_shares() -> None:
    def names(shares: list[list[list[TrainSample]]]) -> list[list[list[str]]]:
        return [[[sample.prompt_id for sample in batch] for batch in share] for share in shares]

    samples = lognormal_trace(64)
    assert names(to_shares(samples, 4, 16_000)) == names(to_shares(samples[::-1], 4, 16_000))


def test_a_sequence_longer_than_a_micro_batch_is_an_error() -> None:
    text = (
        r"prompt long@0 has 11 tokens, more than learner\.micro_batch_tokens=10: raise it, or lower rollout\.max_tokens"
    )
    with pytest.raises(ValueError, match=text):
        to_shares([make_sample(11, name="long@0"), make_sample(2)], ranks=1, max_tokens=10)


def test_prompts_with_a_common_prefix_are_neighbours() -> None:
    prompts = {"a": [1, 2, 3], "b": [7, 8, 9], "c": [1, 2, 4], "d": [7, 8, 6]}
    samples = [
        replace(make_sample(4, name=name, prompt_tokens=3), token_ids=np.array([*prompt, 50], np.int32))
        for name, prompt in prompts.items()
        for _ in range(2)
    ]
    [[batch]] = to_shares(samples, ranks=1, max_tokens=100)
    ordered = [batch[index] for index in neighbours(batch)]
    assert [sample.prompt_id for sample in ordered] == list("aaccddbb")
    assert len(collate(ordered).token_ids) == 4 + 1 + 2 + 1 + 4 + 1 + 2 + 1
    assert neighbours(batch, "padded") == list(range(8))  # rows stay in the order of their lengths


@pytest.mark.parametrize("packing", ["shared", "whole", "padded"])
@pytest.mark.parametrize("ranks", [1, 3, 200])
def test_planned_samples_are_shared_out_as_samples_with_tokens(packing: Packing, ranks: int) -> None:
    rng = np.random.default_rng(ranks)
    groups = rate([recorded(make_tree_group(rng, f"p{number}")) for number in range(6)], DAPO_)
    planned = to_samples(groups, DAPO_)
    built = to_shares([to_train_sample(sample, sample.body) for sample in planned], ranks, 120, packing)
    shares = [
        [[to_train_sample(sample, sample.body) for sample in batch] for batch in share]
        for share in to_shares(planned, ranks, 120, packing)
    ]
    assert plain(shares) == plain(built)
    empty = [batch for share in shares for batch in share if not any(sample.loss_weights.any() for sample in batch)]
    assert bool(empty) == (ranks == 200)  # ranks without work have a sample of weight 0
