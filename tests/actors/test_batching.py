"""Batches of concurrent calls: sorted, bounded in size and in time."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rlframe.actors.batching import Batcher, passes


@pytest.mark.parametrize(
    ("lengths", "max_batch", "max_tokens", "indices"),
    [
        ([], 2, 10, []),
        ([4], 2, 4, [[0]]),
        ([5, 2, 3, 9], 3, 10, [[1, 2], [0], [3]]),
        ([1] * 5, 2, 100, [[0, 1], [2, 3], [4]]),
        ([5, 5, 5], 9, 10, [[0, 1], [2]]),
    ],
)
def test_passes_are_sorted_and_bounded(lengths: list[int], max_batch: int, max_tokens: int, indices: list[list[int]]):
    assert passes(lengths, max_batch, max_tokens) == indices


def test_a_pass_that_takes_too_long_is_an_error_within_its_bound():
    ended = threading.Event()

    def stuck(batch: list[list[int]]) -> list[float]:
        return [float(ended.wait(60))]

    async def run() -> None:
        batcher = Batcher(stuck, thread, max_batch=8, max_batch_tokens=8, timeout_s=0.2)
        with pytest.raises(RuntimeError, match=r"a forward pass of 1 sequences took more than 0.2 s"):
            await batcher.score([1])
        ended.set()

    with ThreadPoolExecutor(max_workers=1) as thread:
        started = time.monotonic()
        asyncio.run(run())
        assert 0.2 <= time.monotonic() - started < 20
