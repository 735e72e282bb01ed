"""Training samples -> each rank's share of micro-batches, by their sizes alone. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np

from rlframe.batch.packing import Item, pack
from rlframe.training import Packing, PlannedSample, TrainSample

S = TypeVar("S", PlannedSample, TrainSample)


def to_shares(samples: list[S], ranks: int, max_tokens: int, packing: Packing = "shared") -> list[list[list[S]]]:
    """[ranks][micro-batches][samples], at most `max_tokens` packed tokens, or padded cells, in a micro-batch.

    Every rank gets the same number of micro-batches, since ZeRO-3 ranks gather parameters in lockstep, and nearly the
    same number of tokens. An empty micro-batch gets a copy of the shortest sample, with weight 0. The samples of a
    micro-batch have no particular order: `collate.neighbours` puts common prefixes side by side.

    Raises ValueError if a sample is longer than `max_tokens`.
    """
    longest_first = sorted(samples, key=lambda sample: (-sample.tokens, sample.prompt_id))
    if longest_first[0].tokens > max_tokens:
        raise ValueError(
            f"a sequence of prompt {longest_first[0].prompt_id} has {longest_first[0].tokens} tokens, "
            f"more than learner.micro_batch_tokens={max_tokens}: raise it, or lower rollout.max_tokens"
        )
    filler = _without_weight(longest_first[-1])
    if packing == "padded":
        shares = _padded(longest_first, ranks, max_tokens)
    else:
        items = [_item(index, sample, packing) for index, sample in enumerate(longest_first)]
        packed = pack(items, ranks, max_tokens)
        shares = [[[longest_first[item.index] for item in batch] for batch in share] for share in packed]
    return [[batch or [filler] for batch in share] for share in shares]


def _without_weight(sample: S) -> S:
    """A copy of the sample that no loss counts."""
    if isinstance(sample, PlannedSample):
        return replace(sample, weight=0.0)
    no_weights = np.zeros_like(sample.loss_weights)
    return replace(sample, loss_weights=no_weights, mean_weights=no_weights)


def _padded(longest_first: list[S], ranks: int, max_cells: int) -> list[list[list[S]]]:
    """[ranks][rounds][samples] of similar length, so that rows of the longest one's length waste few cells.

    A micro-batch takes as many samples as fit. The largest ones are halved until every rank has one in every round.
    """
    micro_batches: list[list[S]] = []
    start = 0
    while start < len(longest_first):
        end = start + max_cells // longest_first[start].tokens
        micro_batches.append(longest_first[start:end])
        start = end
    while len(micro_batches) % ranks and len(largest := max(micro_batches, key=len)) > 1:
        index, half = micro_batches.index(largest), -(-len(largest) // 2)
        micro_batches[index : index + 1] = [largest[:half], largest[half:]]
    micro_batches += [[] for _ in range(-len(micro_batches) % ranks)]
    return [micro_batches[rank::ranks] for rank in range(ranks)]


def _item(index: int, sample: PlannedSample | TrainSample, packing: Packing) -> Item:
    """A sample as an item to pack. Without shared prefixes every sample is a group."""
    if packing != "shared":
        return Item(index=index, group=str(index), shared=0, own=sample.tokens)
    return Item(
        index=index, group=sample.prompt_id, shared=sample.prefix_tokens, own=sample.tokens - sample.prefix_tokens
    )
