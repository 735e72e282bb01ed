"""From samples to packed batches: shared prefixes, positions, recorded experts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rlframe.batch.collate import collate
from rlframe.training import UNRECORDED_EXPERT, TrainSample
from tests.tiny.batches import make_sample


def sample_of(prompt: list[int], completion: list[int], name: str) -> TrainSample:
    """A sample whose prompt and completion have these tokens."""
    return replace(
        make_sample(len(prompt) + len(completion), name=name, prompt_tokens=len(prompt)),
        token_ids=np.array(prompt + completion, np.int32),
    )


def test_a_batch_is_its_sequences_end_to_end_each_counted_from_0() -> None:
    batch = collate([make_sample(3, first=10), make_sample(2, first=20)])
    assert batch.token_ids.tolist() == [10, 11, 12, 20, 21]
    assert batch.sequence_ids.tolist() == [0, 0, 0, 1, 1]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 1]
    assert batch.loss_weights.tolist() == [0.25] * 5
    assert batch.old_logprobs.tolist() == batch.rollout_logprobs.tolist() == [-0.5] * 5
    assert (batch.token_ids.dtype, batch.advantages.dtype) == (torch.int64, torch.float32)


def test_a_common_prefix_is_held_once_by_the_first_sequence() -> None:
    samples = [
        sample_of([1, 2, 3, 4], [50], "a"),
        sample_of([1, 2, 3, 4], [60, 61], "a"),
        sample_of([1, 2, 3, 5, 6], [70], "b"),
        sample_of([1, 2, 3, 5, 6], [70, 71], "b"),  # completions are never shared, equal or not
        sample_of([1, 2, 3], [80], "c"),
        sample_of([9, 2, 3], [90], "d"),
    ]
    batch = collate(samples)
    assert batch.token_ids.tolist() == [1, 2, 3, 4, 50, 60, 61, 5, 6, 70, 70, 71, 80, 9, 2, 3, 90]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 4, 4, 5, 3, 4, 5, 5, 6, 3, 0, 1, 2, 3]
    assert batch.sequence_ids.tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 5, 5, 5, 5]
    assert len(collate(samples, "whole").token_ids) == 32


@pytest.mark.parametrize("completion_tokens, position", [(12, 1), (13, 0)])
def test_a_prefix_below_a_sixteenth_is_not_shared(completion_tokens: int, position: int) -> None:
    samples = [sample_of([1, 2, 3, 4], [50], "a"), sample_of([1, 7, 8, 9], [60] * completion_tokens, "b")]
    assert int(collate(samples).position_ids[5]) == position


def test_tokens_of_older_versions_are_stale() -> None:
    first = replace(sample_of([1, 2], [100, 101], "p"), versions=np.array([0, 0, 6, 7], np.int32))
    second = replace(sample_of([1, 2], [100], "p"), versions=np.array([0, 0, 5], np.int32))
    unrecorded = sample_of([8], [9], "q")
    batch = collate([first, second, unrecorded], version=7)
    assert batch.token_ids.tolist() == [1, 2, 100, 101, 100, 8, 9]
    assert batch.stale is not None
    assert batch.stale.tolist() == [False, False, True, False, True, False, False]


def test_recorded_experts_follow_their_tokens_and_stop_before_the_last() -> None:
    recorded = sample_of([1, 2], [100, 101, 102], "p")
    unrecorded = sample_of([1, 2], [100], "p")
    experts = np.arange(8, dtype=np.uint8).reshape(4, 1, 2)  # of prompt 1, 2 and of 100, 101: 102 was never fed
    recorded = replace(recorded, routed_experts=experts)
    batch = collate([recorded, unrecorded])
    assert batch.token_ids.tolist() == [1, 2, 100, 101, 102, 100]
    assert batch.routed_experts is not None and batch.routed_experts.dtype == torch.int16
    missing = [UNRECORDED_EXPERT, UNRECORDED_EXPERT]
    assert batch.routed_experts[:, 0].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], missing, missing]
    # The second sample of a prompt holds its completion only.
    swapped = collate([unrecorded, recorded]).routed_experts
    assert swapped is not None
    assert swapped[:, 0].tolist() == [missing, missing, missing, [4, 5], [6, 7], missing]


def test_without_recorded_experts_a_batch_has_none() -> None:
    assert collate([make_sample(3), make_sample(2)]).routed_experts is None
