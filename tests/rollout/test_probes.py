"""Probes of a busy engine and loads of weights do not wait for each other. A stand-in for vLLM, which has no slot."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from rlframe.rollout.messages import Probe
from rlframe.rollout.vllm import VLLMEngine


class Vllm:
    """Gives probes a slot when a test says so; everything else happens at once."""

    errored = False

    def __init__(self) -> None:
        self.slot = asyncio.Event()
        self.probes = 0

    async def probe(self, token_ids: list[int], lora: None) -> np.ndarray:
        self.probes += 1
        await self.slot.wait()
        return np.zeros(len(token_ids) - 1, np.float32)

    async def pause_generation(self, **_: Any) -> None: ...
    async def resume_generation(self) -> None: ...
    async def update_weight_version(self, version: str) -> None: ...
    def integrate(self, frozen: bool) -> None: ...


class Engine(VLLMEngine):
    def __init__(self) -> None:
        self.name = "rollout-0"
        self.vllm: Any = Vllm()
        self.llm = self.counters = self.in_flight = self.vllm
        self.adapters, self.gate, self.version, self.differing = None, asyncio.Condition(), 0, set()
        self.keeps_cache, self.loading, self.paused_at = False, False, 0.0

    async def _differing(self, fingerprints: dict[str, int]) -> set[str]:
        return set()


async def probe(loads_before_a_slot: int) -> tuple[Probe, int]:
    """An answer, and the number of probes that vLLM got for it."""
    engine = Engine()
    probing = asyncio.create_task(engine.probe([1, 2, 3]))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(1):
        for version in range(1, loads_before_a_slot + 1):
            await engine.pause()
            await engine.resume(version, {})
        engine.vllm.slot.set()
        return await probing, engine.vllm.probes


def test_loads_do_not_wait_until_a_probe_has_a_slot() -> None:
    answer, probes = asyncio.run(probe(loads_before_a_slot=2))
    assert (answer.version, probes) == (2, 2)  # the first may be of any version


def test_a_probe_without_a_load_is_one_request() -> None:
    answer, probes = asyncio.run(probe(loads_before_a_slot=0))
    assert (answer.version, probes, len(answer.logprobs)) == (0, 1, 2)
