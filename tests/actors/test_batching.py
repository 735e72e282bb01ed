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


def test_calls_that_were_given_up_are_computed_no_more():
    computed: list[int] = []

    def forward(batch: list[list[int]]) -> list[float]:
        time.sleep(0.3)
        computed.extend(ids[0] for ids in batch)
        return [0.0] * len(batch)

    async def run() -> None:
        batcher = Batcher(forward, thread, max_batch=1, max_batch_tokens=8, timeout_s=60.0)
        calls = [asyncio.create_task(batcher.score([number])) for number in range(4)]
        await asyncio.sleep(0.1)  # the first pass has begun
        late = asyncio.create_task(batcher.score([4]))  # of the next round
        await asyncio.sleep(0)
        for call in (calls[1], calls[3], late):
            call.cancel()
        await asyncio.gather(calls[0], calls[2])
        await batcher.score([5])

    with ThreadPoolExecutor(max_workers=1) as thread:
        asyncio.run(run())
    assert computed == [0, 2, 5]


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
