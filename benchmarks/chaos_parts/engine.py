"""`ChaosEngine`: a timed engine as a Ray actor, which reads and checks all weights."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.async_parts.engine import TimedEngine
from rlframe.training import Loaded
from rlframe.weights.shards import checksum

if TYPE_CHECKING:
    from rlframe.types import Prompt, SampledTokens, Sampling
    from rlframe.weights.snapshot import Snapshot

TOKEN_S = 0.005
LOAD_S = 0.05
LENGTHS = range(20, 180)  # of completions, in tokens; token ids are 0, 1, ..., and the tiny model knows 261


def length(prompt_id: str, index: int) -> int:
    """Tokens of a completion, the same in every process."""
    return LENGTHS[zlib.crc32(f"{prompt_id}/{index}".encode()) % len(LENGTHS)]


class ChaosEngine(TimedEngine):
    """Computes nothing, but verifies every value of a version before it samples with that version."""

    def __init__(self, name: str, slots: int) -> None:
        super().__init__(name, slots=slots, token_s=TOKEN_S, load_s=LOAD_S)

    def length(self, prompt: Prompt, index: int, sampling: Sampling, given: SampledTokens | None) -> int:
        return length(prompt.id, index)

    async def load(self, snapshot: Snapshot) -> Loaded:
        wrong = await asyncio.to_thread(wrong_tensors, snapshot)
        loaded = await super().load(snapshot)
        return Loaded(stall_s=loaded.stall_s, mismatched_tensors=wrong)

    async def stamp(self, version: int) -> None: ...

    async def join_object_store(self, address: str, namespace: str) -> None: ...

    def shutdown(self) -> None: ...


def wrong_tensors(snapshot: Snapshot) -> list[str]:
    """Names of tensors whose values, read from the object store, are not those that the ranks published."""
    wrong = set()
    for shards in snapshot.read():
        for header, whole, delta, expected in shards:
            values = whole
            if delta is not None and len(delta.indices):
                values = whole.copy()
                np.put(values, delta.indices, delta.values)
            if checksum(values) != expected:
                wrong.add(header.name)
    return sorted(wrong)
