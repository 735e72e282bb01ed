"""Which sequences go together: full micro-batches, equal ranks, and few copies of a prompt. Pure."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, insort
from dataclasses import dataclass
from itertools import count

ROUND = 1 / 16  # of a full micro-batch: what a round costs beside its tokens (every parameter is gathered twice)
EVEN = 1.01  # a round whose fullest micro-batch is within this of the mean is even


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A sequence as packing sees it: sequences of one group hold their shared tokens once where they are together.

    >>> cost([Item(index=0, group="p", shared=68, own=24), Item(index=1, group="p", shared=68, own=30)])
    122
    """

    index: int  # the caller's
    group: str
    shared: int  # tokens
    own: int


def cost(items: list[Item]) -> int:
    """Tokens of a micro-batch that holds `items`."""
    return sum({item.group: item.shared for item in items}.values()) + sum(item.own for item in items)


def pack(items: list[Item], ranks: int, capacity: int) -> list[list[list[Item]]]:
    """[ranks][rounds][items], at most `capacity` tokens in a micro-batch, which may be empty; no item is larger.

    Ranks work in lockstep, so a round takes as long as its fullest micro-batch, and `ROUND` of a full one on top.
    Two kinds of plan compete, and the one that takes least wins. Groups are cut into pieces of at most `capacity`
    tokens, of half as many, and so on, and pieces are spread evenly: small ones fill better, and every cut repeats
    a prompt. Or groups stand in a row that is cut where a micro-batch is full.
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
    best = min(plans, key=lambda plan: sum(cost(bins[0]) + ROUND * capacity for bins in plan))
    return _by_rank(best, ranks)


def _cut(group: list[Item], limit: float) -> list[list[Item]]:
    """The fewest pieces of about equal size that are within `limit`, or single."""
    shared = max(item.shared for item in group)
    pieces = math.ceil(sum(item.own for item in group) / max(1.0, limit - shared))
    for parts in range(min(pieces, len(group)), len(group)):
        cut = _spread([[item] for item in group], [0] * parts, math.inf)
        if cut and max(map(cost, cut)) <= limit:
            return cut
    return [[item] for item in group]


def _rounds(pieces: list[list[Item]], ranks: int, capacity: int) -> list[list[list[Item]]]:
    """[rounds][ranks][items]: pieces spread evenly over as few rounds as hold them."""
    costs = sorted(map(cost, pieces), reverse=True)
    fitted = _best_fit(pieces, capacity)
    # No fewer than the sum asks for, and none of those larger than a half goes with another.
    least = max(math.ceil(sum(costs) / capacity), sum(2 * tokens > capacity for tokens in costs))
    for rounds in range(math.ceil(least / ranks), math.ceil(len(fitted) / ranks) + 1):
        bins = _spread(pieces, _targets(costs, ranks, rounds), capacity)
        if bins is not None:
            break
    else:
        rounds, bins = math.ceil(len(fitted) / ranks), fitted
    return _in_rounds(bins, rounds, ranks)


def _row(groups: list[list[Item]], ranks: int, capacity: int) -> list[list[list[Item]]]:
    """[rounds][ranks][items]: groups end to end, cut as early as the number of rounds allows, so that all are even."""
    groups = [
        sorted(group, key=lambda item: item.own, reverse=True) for group in sorted(groups, key=cost, reverse=True)
    ]
    rounds = math.ceil(len(_cut_row(groups, capacity)) / ranks)
    even = math.ceil(sum(map(cost, groups)) / (rounds * ranks))
    least = max(even, *(item.shared + item.own for group in groups for item in group))
    target = bisect_left(
        range(capacity), True, lo=least, key=lambda tokens: len(_cut_row(groups, tokens)) <= rounds * ranks
    )
    return _in_rounds(_cut_row(groups, target), rounds, ranks)


def _cut_row(groups: list[list[Item]], target: int) -> list[list[Item]]:
    """Bins of at most `target` tokens, filled one after the other with the largest of a group that fits."""
    bins: list[list[Item]] = [[]]
    room = target
    for group in groups:
        left, prompt = [*group], group[0].shared
        while left:
            at = next((at for at, item in enumerate(left) if prompt + item.own <= room), None)
            if at is None:
                bins.append([])
                room, prompt = target, group[0].shared
                continue
            item = left.pop(at)
            bins[-1].append(item)
            room, prompt = room - prompt - item.own, 0  # the prompt is there now
    return bins


def _in_rounds(bins: list[list[Item]], rounds: int, ranks: int) -> list[list[list[Item]]]:
    """Micro-batches of about one size make a round, the fullest first; empty ones are added where they are too few."""
    bins = sorted(bins, key=cost, reverse=True) + [[] for _ in range(rounds * ranks - len(bins))]
    return [bins[start : start + ranks] for start in range(0, len(bins), ranks)]


def _targets(costs: list[int], ranks: int, rounds: int) -> list[int]:
    """[rounds * ranks]: an even part for each, but where a piece is larger, its whole round is filled up to it."""
    targets: list[int] = []
    left = sum(costs)
    for at in range(rounds):
        largest = costs[at * ranks] if at * ranks < len(costs) else 0
        target = max(largest, math.ceil(left / (ranks * (rounds - at))))
        targets += [target] * ranks
        left = max(0, left - target * ranks)
    return targets


def _spread(pieces: list[list[Item]], targets: list[int], capacity: float) -> list[list[Item]] | None:
    """The largest piece first, always to the bin that is furthest from its target (Graham, 1969, where all are equal).

    Bins end even where small pieces come last. None where a piece fits nowhere.
    """
    filled: list[list[Item]] = [[] for _ in targets]
    furthest = [(-target, at) for at, target in enumerate(targets)]
    heapq.heapify(furthest)
    for piece in sorted(pieces, key=cost, reverse=True):
        tokens = cost(piece)
        while furthest and targets[furthest[0][1]] + furthest[0][0] + tokens > capacity:
            heapq.heappop(furthest)  # full
        if not furthest:
            return None
        missing, at = furthest[0]
        filled[at] += piece
        heapq.heapreplace(furthest, (missing + tokens, at))
    return filled


def _best_fit(pieces: list[list[Item]], capacity: int) -> list[list[Item]]:
    """The largest piece first, always to the bin that it leaves the least room in; a new bin where none has room."""
    filled: list[list[Item]] = []
    room: list[tuple[int, int]] = []  # ascending (tokens, bin)
    for piece in sorted(pieces, key=cost, reverse=True):
        tokens = cost(piece)
        at = bisect_left(room, (tokens, 0))
        left, bin = room.pop(at) if at < len(room) else (capacity, len(filled))
        if bin == len(filled):
            filled.append([])
        filled[bin] += piece
        insort(room, (left - tokens, bin))
    return filled


def _even_out(bins: list[list[Item]]) -> list[list[Item]]:
    """Moves sequence by sequence from the fullest to the emptiest while that is worth the prompt that may come along.

    What whole pieces leave uneven are rounds of few of them. Each move makes the fullest less full, so it ends.
    """
    even = EVEN * sum(map(cost, bins)) / len(bins)
    while True:
        fullest, *others = bins = sorted(bins, key=cost, reverse=True)
        if not others or cost(fullest) <= even:
            return bins
        *others, emptiest = others
        moves = [([i for i in fullest if i is not item], [*emptiest, item]) for item in fullest]
        move = min(moves, key=lambda move: max(map(cost, move)))
        if max(map(cost, move)) >= cost(fullest):
            return bins
        bins = [*others, *move]


def _by_rank(rounds: list[list[list[Item]]], ranks: int) -> list[list[list[Item]]]:
    """In each round the fullest micro-batch goes to the rank that has had least so far."""
    totals = [0] * ranks
    shares: list[list[list[Item]]] = [[] for _ in range(ranks)]
    for bins in rounds:
        for bin, rank in zip(bins, sorted(range(ranks), key=totals.__getitem__), strict=True):
            shares[rank].append(bin)
            totals[rank] += cost(bin)
    return shares
