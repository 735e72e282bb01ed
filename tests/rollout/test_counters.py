"""An engine's counts, from reports as vLLM's schedulers make them."""

from __future__ import annotations

from vllm.v1.metrics.stats import IterationStats, PrefixCacheStats, SchedulerStats

from rlframe.rollout.counters import Counters


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def report(running: int, tokens: int = 0, preempted: tuple[int, int] = (0, 0)) -> tuple[SchedulerStats, IterationStats]:
    """Of a scheduler's step; `preempted`: tokens of requests that enter again, and how many the cache had."""
    iteration = IterationStats()
    iteration.num_generation_tokens = tokens
    cache = PrefixCacheStats(preempted_queries=preempted[0], preempted_hits=preempted[1])
    return SchedulerStats(num_running_reqs=running, prefix_cache_stats=cache), iteration


def counters(cores: int) -> tuple[Clock, Counters]:
    counters = Counters(clock := Clock())
    for core in range(cores):
        counters(None, core)  # pyright: ignore[reportArgumentType]
    return clock, counters


def test_running_requests_are_integrated_over_the_seconds() -> None:
    clock, counts = counters(1)
    counts.cores[0].record(*report(running=3))
    clock.seconds = 2.0
    counts.cores[0].record(*report(running=1))
    clock.seconds = 5.0
    assert counts.integrate() == 3 * 2 + 1 * 3
    counts.cores[0].record(*report(running=0))
    clock.seconds = 100.0
    assert counts.integrate() == 9


def test_frozen_requests_are_in_no_busy_slot() -> None:
    clock, counts = counters(1)
    counts.cores[0].record(*report(running=4))
    clock.seconds = 1.0
    counts.integrate()
    clock.seconds = 11.0
    assert counts.integrate(frozen=True) == 4
    clock.seconds = 12.0
    assert counts.integrate() == 8


def test_the_copies_of_a_data_parallel_engine_add_up() -> None:
    clock, counts = counters(2)
    counts.cores[0].record(*report(running=2, tokens=2))
    counts.cores[1].record(*report(running=3, tokens=5))
    clock.seconds = 1.0
    assert (counts.tokens, counts.integrate()) == (7, 5.0)


def test_recomputed_tokens_are_those_that_the_cache_had_lost() -> None:
    _, counts = counters(1)
    counts.cores[0].record(*report(running=2, preempted=(100, 32)))
    counts.cores[0].record(*report(running=2))
    counts.cores[0].record(None, None)
    assert counts.recomputed_tokens == 68
