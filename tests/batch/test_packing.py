"""Packing of a long-tailed trace of lengths, and of groups small enough to count."""

from collections import Counter

import numpy as np
import pytest

from rlframe.batch.packing import Item, cost, pack

CAPACITY = 16_384


def alone(sizes: list[int]) -> list[Item]:
    return [Item(index=index, group=str(index), shared=0, own=size) for index, size in enumerate(sizes)]


def group(name: str, prompt: int, completions: list[int], first: int = 0) -> list[Item]:
    return [Item(index=first + index, group=name, shared=prompt, own=size) for index, size in enumerate(completions)]


def lognormal_trace(count: int, seed: int = 0) -> list[int]:
    """Lengths of median 1k and sigma 1, cut off at the capacity: a few sequences hold many of the tokens."""
    return np.random.default_rng(seed).lognormal(np.log(1000), 1.0, count).clip(1, CAPACITY).astype(int).tolist()


def lognormal_groups(prompts: int, completions: int, seed: int = 0) -> list[Item]:
    """Prompts of median 250 tokens, and completions whose median differs from prompt to prompt by sigma 1."""
    rng = np.random.default_rng(seed)
    items: list[Item] = []
    for index in range(prompts):
        prompt = int(rng.lognormal(np.log(250), 0.5)) + 1
        sizes = rng.lognormal(np.log(700) + rng.normal(), 0.5, completions).clip(1, CAPACITY - prompt)
        items += group(f"p{index}", prompt, sizes.astype(int).tolist(), first=len(items))
    return items


def rank_balance(shares: list[list[list[Item]]]) -> float:
    totals = [sum(cost(bin) for bin in share) for share in shares]
    return max(totals) / float(np.mean(totals))


def fill(shares: list[list[list[Item]]], capacity: int) -> float:
    return float(np.mean([cost(bin) / capacity for share in shares for bin in share]))


def assert_sound(items: list[Item], shares: list[list[list[Item]]], capacity: int) -> None:
    """Every item is packed once, no micro-batch is too full, and all ranks have the same number of rounds."""
    placed = Counter(item.index for share in shares for bin in share for item in bin)
    assert placed == Counter(range(len(items)))
    assert max(cost(bin) for share in shares for bin in share) <= capacity
    assert len({len(share) for share in shares}) == 1


def test_2048_sequences_fill_8_ranks_to_98_percent_and_evenly():
    items = alone(lognormal_trace(2048))
    shares = pack(items, 8, CAPACITY)
    assert_sound(items, shares, CAPACITY)
    assert fill(shares, CAPACITY) >= 0.98
    assert rank_balance(shares) <= 1.001


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count, ranks, capacity", [(2048, 8, 32_768), (512, 8, 16_384), (128, 4, 16_384)])
def test_packing_needs_the_fewest_rounds_and_is_even_to_a_hundredth(count, ranks, capacity, seed):
    sizes = lognormal_trace(count, seed)
    shares = pack(alone(sizes), ranks, capacity)
    assert_sound(alone(sizes), shares, capacity)
    assert len(shares[0]) == -(-sum(sizes) // (ranks * capacity))  # lower bound by the sum of tokens
    assert rank_balance(shares) <= 1.01


@pytest.mark.parametrize("items", [alone(lognormal_trace(8192)), lognormal_groups(512, 16)], ids=["alone", "groups"])
def test_8192_sequences_are_packed_once_and_within_capacity(items):
    assert_sound(items, pack(items, 8, CAPACITY), CAPACITY)


@pytest.mark.parametrize("seed", range(5))
def test_groups_share_prompts_and_ranks_stay_even(seed):
    items = lognormal_groups(128, 16, seed)
    shares = pack(items, 8, CAPACITY)
    assert_sound(items, shares, CAPACITY)
    tokens = sum(cost(bin) for share in shares for bin in share)
    unshared, least = sum(item.shared + item.own for item in items), cost(items)
    assert (unshared - tokens) / (unshared - least) > 0.9  # of the tokens that sharing can save
    assert rank_balance(shares) <= 1.01


def test_repeated_prompts_cost_128_groups_of_16_one_round_in_twenty():
    items = lognormal_groups(128, 16, seed=1)
    assert -(-cost(items) // (8 * CAPACITY)) == 20  # lower bound, with each prompt once
    assert len(pack(items, 8, CAPACITY)[0]) == 21


def test_groups_in_a_row_are_cut_where_a_micro_batch_is_full():
    # Groups of 26, 24 and 22 tokens fit into two micro-batches of 40 only if a group is cut and its prompt repeated.
    items = group("p", 2, [8, 8, 8]) + group("q", 4, [10, 10], first=3) + group("r", 2, [10, 10], first=5)
    shares = pack(items, 1, 40)
    assert_sound(items, shares, 40)
    assert sorted(cost(bin) for bin in shares[0]) == [36, 38]


def test_a_group_that_fits_stays_together():
    items = group("p", 10, [3, 4, 5]) + group("q", 6, [4, 4, 8], first=3)  # 22 tokens each
    shares = pack(items, 2, 22)
    assert sorted({item.group for item in bin} for share in shares for bin in share) == [{"p"}, {"q"}]
    assert [[cost(bin) for bin in share] for share in shares] == [[22], [22]]


def test_a_group_larger_than_a_micro_batch_is_cut_into_equal_pieces():
    shares = pack(group("p", 10, [6, 6, 6, 6]), 1, 30)  # 34 tokens in one piece; 10 + 12 in each of two pieces
    assert [[cost(bin) for bin in share] for share in shares] == [[22, 22]]


def test_a_single_group_is_cut_so_that_both_ranks_have_work():
    assert [[cost(bin) for bin in share] for share in pack(group("p", 4, [8, 8, 8, 8]), 2, 64)] == [[20], [20]]
    assert rank_balance(pack(group("p", 4, [8, 8, 8, 8]), 2, 64)) == 1.0


def test_sequences_move_from_ranks_with_3_groups_to_a_rank_with_2():
    items = [item for p in range(8) for item in group(f"p{p}", 68, [24] * 8, first=8 * p)]  # 260 tokens each
    shares = pack(items, 3, 3072)
    assert_sound(items, shares, 3072)
    # Whole groups make 780, 780 and 520 tokens. Two sequences move from each of the first two ranks to the third rank,
    # which then holds 4 prompts and 20 sequences. The first two ranks hold 3 prompts and 22 sequences each.
    assert sorted(cost(bin) for share in shares for bin in share) == [732, 732, 752]


def test_sequences_above_half_the_capacity_get_a_micro_batch_each():
    shares = pack(alone([6] * 5), 2, 10)  # 30 tokens: two rounds would be enough by the sum
    assert [[cost(bin) for bin in share] for share in shares] == [[6, 6, 6], [6, 6, 0]]


def test_best_fit_helps_where_the_emptiest_micro_batch_has_no_room():
    # Largest first into the emptiest of two makes 5 + 3 and 4 + 4, and the 2 fits into neither within 9.
    shares = pack(alone([5, 4, 4, 3, 2]), 1, 9)
    assert sorted(cost(bin) for bin in shares[0]) == [9, 9]
