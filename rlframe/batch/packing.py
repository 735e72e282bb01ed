"""Packing of sequences into micro-batches: full micro-batches, equal ranks, few copies of a prompt. Pure."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from dataclasses import dataclass
from itertools import count

ROUND_COST = 1 / 16  # fixed cost of a round (every parameter is gathered twice), as a part of a full micro-batch
EVEN_FACTOR = 1.01  # a round is even if the fullest micro-batch is within this factor of the mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A sequence to pack. Items of a group hold the shared tokens once per micro-batch.

    >>> cost([Item(index=0, group="p", shared=68, own=24), Item(index=1, group="p", shared=68, own=30)])
    122
    """

    index: int  # in the caller's list
    group: str
    shared: int  # tokens that all items of the group begin with
    own: int  # tokens after the shared ones


def cost(items: list[Item]) -> int:
    """Tokens of a micro-batch that holds `items`."""
    return sum({item.group: item.shared for item in items}.values()) + sum(item.own for item in items)


def pack(items: list[Item], ranks: int, capacity: int) -> list[list[list[Item]]]:
    """[ranks][rounds][items], at most `capacity` tokens in a micro-batch, which may be empty; no item is larger.

    Ranks work in lockstep, so a round takes as long as the fullest micro-batch, plus `ROUND_COST` of a full one. Two
    kinds of plan compete, and the cheapest wins. The first kind cuts groups into pieces of at most `capacity` tokens,
    then of half as many, and so on, and spreads the pieces evenly: small pieces fill better, and every cut repeats a
    prompt. The second kind lays all groups in a row and cuts the row where a micro-batch is full.
    """
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.group, []).append(item)
    plans = []
    for halvings in count():
        pieces = [piece for group in groups.values() for piece in _cut(group, capacity / 2**halvings)]
        plans.append(_rounds(pieces, ranks, capacity))
        if len(pieces) == len(items):
            break
    if len(groups) < len(items):
        plans.append(_row(list(groups.values()), ranks, capacity))
    plans = [[_even_out(bins) for bins in plan] for plan in plans]
    best = min(plans, key=lambda plan: sum(cost(bins[0]) + ROUND_COST * capacity for bins in plan))
    return _by_rank(best, ranks)


def _cut(group: list[Item], limit: float) -> list[list[Item]]:
    """The fewest pieces of about equal size that are within `limit`; single items where none are."""
    shared = max(item.shared for item in group)
    pieces = math.ceil(sum(item.own for item in group) / max(1.0, limit - shared))
    for size in range(min(pieces, len(group)), len(group)):
        cut = _spread([[item] for item in group], [0] * size, math.inf)
        if cut and max(map(cost, cut)) <= limit:
            return cut
    return [[item] for item in group]


def _rounds(pieces: list[list[Item]], ranks: int, capacity: int) -> list[list[list[Item]]]:
    """[rounds][ranks][items]: pieces spread evenly over the fewest rounds with enough room."""
    costs = sorted(map(cost, pieces), reverse=True)
    fitted = _best_fit(pieces, capacity)
    # Lower bounds: the total; a bin for each piece of more than half a bin, since no two such pieces fit together.
    lower_bound = max(math.ceil(sum(costs) / capacity), sum(2 * tokens > capacity for tokens in costs))
    for rounds in range(math.ceil(lower_bound / ranks), math.ceil(len(fitted) / ranks) + 1):
        bins = _spread(pieces, _targets(costs, ranks, rounds), capacity)
        if bins is not None:
            break
    else:
        rounds, bins = math.ceil(len(fitted) / ranks), fitted
    return _in_rounds(bins, rounds, ranks)


def _row(groups: list[list[Item]], ranks: int, capacity: int) -> list[list[list[Item]]]:
    """[rounds][ranks][items]: groups in a row, cut at the smallest size that needs no extra round, so all are even."""
    groups = [
        sorted(group, key=lambda item: item.own, reverse=True) for group in sorted(groups, key=cost, reverse=True)
    ]
    rounds = math.ceil(len(_cut_row(groups, capacity)) / ranks)
    mean = math.ceil(sum(map(cost, groups)) / (rounds * ranks))
    smallest = max(mean, *(item.shared + item.own for group in groups for item in group))
    target = bisect_left(
        range(capacity), True, lo=smallest, key=lambda tokens: len(_cut_row(groups, tokens)) <= rounds * ranks
    )
    return _in_rounds(_cut_row(groups, target), rounds, ranks)


def _cut_row(groups: list[list[Item]], target: int) -> list[list[Item]]:
    """Bins of at most `target` tokens, filled one after the other with the largest item of the group that fits."""
    bins: list[list[Item]] = [[]]
    room = target
    for group in groups:
        remaining, prompt = [*group], group[0].shared
        while remaining:
            index = next((index for index, item in enumerate(remaining) if prompt + item.own <= room), None)
            if index is None:
                bins.append([])
                room, prompt = target, group[0].shared
                continue
            item = remaining.pop(index)
            bins[-1].append(item)
            room, prompt = room - prompt - item.own, 0  # the bin holds the prompt from now on
    return bins


def _in_rounds(bins: list[list[Item]], rounds: int, ranks: int) -> list[list[list[Item]]]:
    """Micro-batches of similar size make a round, the fullest first; empty micro-batches fill up the last rounds."""
    bins = sorted(bins, key=cost, reverse=True) + [[] for _ in range(rounds * ranks - len(bins))]
    return [bins[start : start + ranks] for start in range(0, len(bins), ranks)]


def _targets(costs: list[int], ranks: int, rounds: int) -> list[int]:
    """[rounds * ranks] tokens to aim at: equal parts, but a round with a larger piece is filled up to that piece."""
    targets: list[int] = []
    remaining = sum(costs)
    for index in range(rounds):
        largest = costs[index * ranks] if index * ranks < len(costs) else 0
        target = max(largest, math.ceil(remaining / (ranks * (rounds - index))))
        targets += [target] * ranks
        remaining = max(0, remaining - target * ranks)
    return targets


def _spread(pieces: list[list[Item]], targets: list[int], capacity: float) -> list[list[Item]] | None:
    """Puts the largest piece first, always into the bin furthest from the target; None where a piece fits nowhere.

    With equal targets this is Graham's rule (1969). Bins end even because small pieces come last.
    """
    bins: list[list[Item]] = [[] for _ in targets]
    furthest = [(-target, index) for index, target in enumerate(targets)]
    heapq.heapify(furthest)
    for piece in sorted(pieces, key=cost, reverse=True):
        tokens = cost(piece)
        while furthest and targets[furthest[0][1]] + furthest[0][0] + tokens > capacity:
            heapq.heappop(furthest)  # full
        if not furthest:
            return None
        missing, index = furthest[0]
        bins[index] += piece
        heapq.heapreplace(furthest, (missing + tokens, index))
    return bins


def _best_fit(pieces: list[list[Item]], capacity: int) -> list[list[Item]]:
    """Puts the largest piece first, into the bin with the least sufficient room, or else into a new bin."""
    bins: list[list[Item]] = []
    room: list[tuple[int, int]] = []  # ascending (tokens, bin)
    for piece in sorted(pieces, key=cost, reverse=True):
        tokens = cost(piece)
        position = bisect_left(room, (tokens, 0))
        space, index = room.pop(position) if position < len(room) else (capacity, len(bins))
        if index == len(bins):
            bins.append([])
        bins[index] += piece
        insort(room, (space - tokens, index))
    return bins


def _even_out(bins: list[list[Item]]) -> list[list[Item]]:
    """Moves sequences from the fullest bin to the emptiest while that pays for the prompt that may come along.

    Rounds of few, large pieces start uneven. Each move makes the fullest bin less full, so the loop ends.
    """
    even = EVEN_FACTOR * sum(map(cost, bins)) / len(bins)
    while True:
        fullest, *middle = bins = sorted(bins, key=cost, reverse=True)
        if not middle or cost(fullest) <= even:
            return bins
        *middle, emptiest = middle
        moves = [([i for i in fullest if i is not item], [*emptiest, item]) for item in fullest]
        move = min(moves, key=lambda move: max(map(cost, move)))
        if max(map(cost, move)) >= cost(fullest):
            return bins
        bins = [*middle, *move]


def _by_rank(rounds: list[list[list[Item]]], ranks: int) -> list[list[list[Item]]]:
    """In each round the fullest micro-batch goes to the rank with the fewest tokens so far."""
    totals = [0] * ranks
    shares: list[list[list[Item]]] = [[] for _ in range(ranks)]
    for bins in rounds:
        for items, rank in zip(bins, sorted(range(ranks), key=totals.__getitem__), strict=True):
            shares[rank].append(items)
            totals[rank] += cost(items)
    return shares
