"""A new engine is compared with engines that serve, in this process and on a virtual clock."""

from __future__ import annotations

import asyncio

import numpy as np

from benchmarks.async_parts.engine import TimedEngine
from rlframe.actors.in_process import InProcess
from rlframe.actors.replicas import Replica
from rlframe.cluster import parity
from rlframe.rollout.messages import Probe
from tests.tiny.mortal_engines import now, on_virtual_clock


class Engine(TimedEngine):
    """Answers after `seconds`, with log-probabilities that are `shift` off, and a version more each time if `loads`."""

    def __init__(self, number: int, *, seconds: float = 0.0, shift: float = 0.0, loads: bool = False) -> None:
        super().__init__(f"rollout-{number}", slots=8, token_s=0.01, load_s=0.0)
        self.seconds, self.shift, self.loads, self.probes = seconds, np.float32(shift), loads, 0

    async def probe(self, token_ids: list[int]) -> Probe:
        await asyncio.sleep(self.seconds)
        self.probes += 1
        right = await super().probe(token_ids)
        return Probe(version=self.probes if self.loads else 0, logprobs=right.logprobs + self.shift)


def compare(*serving: Engine) -> tuple[str | None, list[str], float]:
    """The difference of rollout-9 from engines that serve, the lines for the console, and the seconds it took."""
    newcomer, *peers = [Replica(name=each.name, handle=InProcess(each)) for each in (Engine(9), *serving)]
    lines: list[str] = []

    async def run() -> tuple[str | None, list[str], float]:
        return await parity.difference(newcomer, lambda: peers, 0.1, 60.0, lines.append), lines, now()

    return on_virtual_clock(run)


def test_an_engine_is_compared_with_the_first_that_answers() -> None:
    problem, lines, seconds = compare(Engine(0, seconds=100), Engine(1, shift=0.5), Engine(2))
    assert problem is not None and "other log-probabilities than rollout-1" in problem and "0.5 apart" in problem
    assert (lines, seconds) == ([], 15.0)
    assert compare(Engine(0, seconds=14)) == (None, [], 14.0)


def test_an_engine_that_nobody_is_compared_with_is_told() -> None:
    problem, [line], seconds = compare(Engine(0, seconds=100), Engine(1, seconds=100))
    assert (problem, seconds) == (None, 30.0)
    assert line.startswith("rollout-9 serves and was compared with no engine: rollout-0, rollout-1 told no log-prob")
    problem, [line], seconds = compare(*[Engine(number, seconds=100) for number in range(8)])
    assert (problem, seconds) == (None, 45.0)
    assert line.count("rollout-") == 1 + 3
    problem, [line], seconds = compare(Engine(0, loads=True))  # 20 answers, 0.2 s apart
    assert problem is None and line.endswith("versions changed during 20 comparisons") and round(seconds, 3) == 4.0


def test_the_only_engine_needs_no_comparison() -> None:
    assert compare() == (None, [], 0.0)
