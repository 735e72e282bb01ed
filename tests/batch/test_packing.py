"""Which sequences go together: on a long-tailed trace of lengths, and on groups small enough to count."""

from collections import Counter

import numpy as np
import pytest

from rlframe.batch.packing import Item, cost, pack

CAPACITY = 16_384


def alone(sizes: list[int]) -> list[Item]:
    return [Item(index=at, group=str(at), shared=0, own=size) for at, size in enumerate(sizes)]


def group(name: str, prompt: int, completions: list[int], first: int = 0) -> list[Item]:
    return [Item(index=first + at, group=name, shared=prompt, own=size) for at, size in enumerate(completions)]


def lognormal_trace(count: int, seed: int = 0) -> list[int]:
    """Lengths of median 1k and sigma 1, cut off at the capacity: a few sequences hold much of the tokens."""
    return np.random.default_rng(seed).lognormal(np.log(1000), 1.0, count).clip(1, CAPACITY).astype(int).tolist()


def lognormal_groups(prompts: int, completions: int, seed: int = 0) -> list[Item]:
    """Prompts of median 250 tokens, and completions whose median differs from prompt to prompt by sigma 1."""
    rng = np.random.default_rng(seed)
    items: list[Item] = []
    for at in range(prompts):
        prompt = int(rng.lognormal(np.log(250), 0.5)) + 1
        drawn = rng.lognormal(np.log(700) + rng.normal(), 0.5, completions).clip(1, CAPACITY - prompt)
        items += group(f"p{at}", prompt, drawn.astype(int).tolist(), first=len(items))
    return items


def rank_balance(shares: list[list[list[Item]]]) -> float:
    totals = [sum(cost(bin) for bin in share) for share in shares]
    return max(totals) / float(np.mean(totals))


def fill(shares: list[list[list[Item]]], capacity: int) -> float:
    return float(np.mean([cost(bin) / capacity for share in shares for bin in share]))


def assert_sound(items: list[Item], shares: list[list[list[Item]]], capacity: int) -> None:
    """Everything placed once, nothing too full, the same number of rounds everywhere."""
    placed = Counter(item.index for share in shares for bin in share for item in bin)
    assert placed == Counter(range(len(items)))
    assert max(cost(bin) for share in shares for bin in share) <= capacity
    assert len({len(share) for share in shares}) == 1


def test_a_trace_of_2048_sequences_fills_8_ranks_to_98_percent_and_evenly_to_a_thousandth():
    items = alone(lognormal_trace(2048))
    shares = pack(items, 8, CAPACITY)
    assert_sound(items, shares, CAPACITY)
    assert fill(shares, CAPACITY) >= 0.98
    assert rank_balance(shares) <= 1.001


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count, ranks, capacity", [(2048, 8, 32_768), (512, 8, 16_384), (128, 4, 16_384)])
def test_no_packing_has_fewer_rounds_and_none_is_a_hundredth_more_even(count, ranks, capacity, seed):
    sizes = lognormal_trace(count, seed)
    shares = pack(alone(sizes), ranks, capacity)
    assert_sound(alone(sizes), shares, capacity)
    assert len(shares[0]) == -(-sum(sizes) // (ranks * capacity))  # what the sum of tokens asks for, rounded up
    assert rank_balance(shares) <= 1.01


@pytest.mark.parametrize("items", [alone(lognormal_trace(8192)), lognormal_groups(512, 16)], ids=["alone", "groups"])
def test_all_of_8192_sequences_are_packed_once_and_within_capacity(items):
    assert_sound(items, pack(items, 8, CAPACITY), CAPACITY)


@pytest.mark.parametrize("seed", range(5))
def test_groups_share_prompts_and_ranks_stay_even(seed):
    items = lognormal_groups(128, 16, seed)
    shares = pack(items, 8, CAPACITY)
    assert_sound(items, shares, CAPACITY)
    tokens = sum(cost(bin) for share in shares for bin in share)
    unshared, least = sum(item.shared + item.own for item in items), cost(items)
    assert (unshared - tokens) / (unshared - least) > 0.9  # of all that sharing can save
    assert rank_balance(shares) <= 1.01


def test_repeated_prompts_cost_128_groups_of_16_one_round_in_twenty():
    items = lognormal_groups(128, 16, seed=1)
    assert -(-cost(items) // (8 * CAPACITY)) == 20  # what the tokens ask for where no prompt is repeated
    assert len(pack(items, 8, CAPACITY)[0]) == 21


def test_a_row_of_groups_is_cut_where_a_micro_batch_is_full():
    # Groups of 26, 24 and 22 tokens do not fit into two micro-batches of 40 unless one is cut, its prompt repeated.
    items = group("p", 2, [8, 8, 8]) + group("q", 4, [10, 10], first=3) + group("r", 2, [10, 10], first=5)
    shares = pack(items, 1, 40)
    assert_sound(items, shares, 40)
    assert sorted(cost(bin) for bin in shares[0]) == [36, 38]


def test_a_group_that_fits_stays_together():
    items = group("p", 10, [3, 4, 5]) + group("q", 6, [4, 4, 8], first=3)  # 22 tokens each
    shares = pack(items, 2, 22)
    assert sorted({item.group for item in bin} for share in shares for bin in share) == [{"p"}, {"q"}]
    assert [[cost(bin) for bin in share] for share in shares] == [[22], [22]]


def test_a_group_larger_than_a_micro_batch_is_cut_into_few_equal_pieces_each_with_its_prompt():
    shares = pack(group("p", 10, [6, 6, 6, 6]), 1, 30)  # 34 tokens in one piece, 10 + 12 in each of two
    assert [[cost(bin) for bin in share] for share in shares] == [[22, 22]]


def test_one_group_on_two_ranks_is_cut_where_half_the_work_is_worth_a_second_copy_of_the_prompt():
    assert [[cost(bin) for bin in share] for share in pack(group("p", 4, [8, 8, 8, 8]), 2, 64)] == [[20], [20]]
    assert rank_balance(pack(group("p", 4, [8, 8, 8, 8]), 2, 64)) == 1.0


def test_8_groups_on_3_ranks_lend_sequences_so_that_two_ranks_are_not_a_group_ahead():
    items = [item for at in range(8) for item in group(f"p{at}", 68, [24] * 8, first=8 * at)]  # 260 tokens each
    shares = pack(items, 3, 3072)
    assert_sound(items, shares, 3072)
    # Whole groups make 3 x 260, 3 x 260 and 2 x 260. Two sequences from each of the first two go to the third, which
    # then holds 4 prompts and 20 sequences; they hold 3 prompts and 22 sequences.
    assert sorted(cost(bin) for share in shares for bin in share) == [732, 732, 752]


def test_sequences_larger_than_a_half_have_a_micro_batch_each():
    shares = pack(alone([6] * 5), 2, 10)  # 30 tokens: two rounds by the sum
    assert [[cost(bin) for bin in share] for share in shares] == [[6, 6, 6], [6, 6, 0]]


def test_where_the_emptiest_has_no_room_a_tighter_packing_is_found():
    # Largest first to the emptiest of two makes 5 + 3 + 2 and 4 + 4, where 2 has no room left in either of 9.
    shares = pack(alone([5, 4, 4, 3, 2]), 1, 9)
    assert sorted(cost(bin) for bin in shares[0]) == [9, 9]
