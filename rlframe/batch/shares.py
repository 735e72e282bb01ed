"""Training samples -> each rank's share of micro-batches. Pure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rlframe.batch.collate import prefix_order
from rlframe.batch.packing import Item, pack
from rlframe.training import Packing, TrainSample


def to_shares(
    samples: list[TrainSample], ranks: int, max_tokens: int, packing: Packing = "shared"
) -> list[list[list[TrainSample]]]:
    """[ranks][micro-batches][samples], at most `max_tokens` packed tokens, or padded cells, in a micro-batch.

    Every rank gets the same number of micro-batches, since ZeRO-3 ranks gather parameters in lockstep, and nearly the
    same number of tokens. An empty micro-batch gets a copy of the shortest sample, with weight 0.

    Raises ValueError if a sample is longer than `max_tokens`.
    """
    longest_first = sorted(samples, key=lambda sample: (-len(sample.token_ids), sample.prompt_id))
    if len(longest_first[0].token_ids) > max_tokens:
        raise ValueError(
            f"a sequence of prompt {longest_first[0].prompt_id} has {len(longest_first[0].token_ids)} tokens, "
            f"more than learner.micro_batch_tokens={max_tokens}: raise it, or lower rollout.max_tokens"
        )
    shortest = longest_first[-1]
    no_weights = np.zeros_like(shortest.loss_weights)
    filler = replace(shortest, loss_weights=no_weights, mean_weights=no_weights)

    def micro_batch(packed: list[Item]) -> list[TrainSample]:
        return sorted((longest_first[item.index] for item in packed), key=prefix_order) or [filler]

    if packing == "padded":
        return [[rows or [filler] for rows in share] for share in _padded(longest_first, ranks, max_tokens)]
    items = [_item(index, sample, packing) for index, sample in enumerate(longest_first)]
    return [[micro_batch(packed) for packed in share] for share in pack(items, ranks, max_tokens)]


def _padded(longest_first: list[TrainSample], ranks: int, max_cells: int) -> list[list[list[TrainSample]]]:
    """[ranks][rounds][samples] of similar length, so that rows of the longest one's length waste few cells.

    A micro-batch takes as many samples as fit. The largest ones are halved until every rank has one in every round.
    """
    micro_batches: list[list[TrainSample]] = []
    start = 0
    while start < len(longest_first):
        end = start + max_cells // len(longest_first[start].token_ids)
        micro_batches.append(longest_first[start:end])
        start = end
    while len(micro_batches) % ranks and len(largest := max(micro_batches, key=len)) > 1:
        index, half = micro_batches.index(largest), -(-len(largest) // 2)
        micro_batches[index : index + 1] = [largest[:half], largest[half:]]
    micro_batches += [[] for _ in range(-len(micro_batches) % ranks)]
    return [micro_batches[rank::ranks] for rank in range(ranks)]


def _item(index: int, sample: TrainSample, packing: Packing) -> Item:
    """A sample as an item to pack. Without shared prefixes every sample is a group."""
    if packing != "shared":
        return Item(index=index, group=str(index), shared=0, own=len(sample.token_ids))
    suffix_tokens = len(sample.token_ids) - sample.prefix_tokens
    return Item(index=index, group=sample.prompt_id, shared=sample.prefix_tokens, own=suffix_tokens)
