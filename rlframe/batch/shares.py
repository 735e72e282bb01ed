"""Training samples -> each rank's share of micro-batches. Pure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rlframe.batch.collate import prefix_order
from rlframe.batch.packing import Item, pack
from rlframe.types import TrainSample


def to_shares(
    samples: list[TrainSample], ranks: int, max_tokens: int, share_prefixes: bool = True
) -> list[list[list[TrainSample]]]:
    """[ranks][micro-batches][samples], at most `max_tokens` packed tokens in a micro-batch.

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
    items = [_item(index, sample, share_prefixes) for index, sample in enumerate(longest_first)]
    shortest = longest_first[-1]
    filler = replace(shortest, loss_weights=np.zeros_like(shortest.loss_weights))

    def micro_batch(packed: list[Item]) -> list[TrainSample]:
        return sorted((longest_first[item.index] for item in packed), key=prefix_order) or [filler]

    return [[micro_batch(packed) for packed in share] for share in pack(items, ranks, max_tokens)]


def _item(index: int, sample: TrainSample, share_prefixes: bool) -> Item:
    """A sample as an item to pack. Without shared prefixes every sample is a group."""
    if not share_prefixes:
        return Item(index=index, group=str(index), shared=0, own=len(sample.token_ids))
    suffix_tokens = len(sample.token_ids) - sample.prefix_tokens
    return Item(index=index, group=sample.prompt_id, shared=sample.prefix_tokens, own=suffix_tokens)
