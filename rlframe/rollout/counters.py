"""`Counters`: tokens and busy slots of an engine, as vLLM's schedulers report them after each of their steps."""

from __future__ import annotations

import time
from collections.abc import Callable

from vllm.config import VllmConfig
from vllm.v1.metrics.loggers import StatLoggerBase
from vllm.v1.metrics.stats import IterationStats, MultiModalCacheStats, SchedulerStats


class CoreCounter(StatLoggerBase):
    """The counts of one scheduler: an engine has one for each of its data-parallel copies.

    `recomputed_tokens`: prompt and sampled tokens of requests that lost their keys and values and entered again, less
    the tokens that the prefix cache still had. Loads discard keys and values; so does vLLM where memory is short.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.tokens = 0
        self.recomputed_tokens = 0
        self.busy_slot_s = 0.0  # running requests, integrated over the seconds until `_since`
        self._running = 0  # requests since then
        self._since = now()

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: MultiModalCacheStats | None = None,
        engine_idx: int = 0,
    ) -> None:
        if iteration_stats is not None:
            self.tokens += iteration_stats.num_generation_tokens
        if scheduler_stats is not None:
            self.integrate()
            self._running = scheduler_stats.num_running_reqs
            cache = scheduler_stats.prefix_cache_stats
            self.recomputed_tokens += cache.preempted_queries - cache.preempted_hits

    def integrate(self, *, frozen: bool = False) -> None:
        """Counts the seconds since the last call, unless requests were `frozen` meanwhile."""
        now = self.now()
        self.busy_slot_s += 0 if frozen else self._running * (now - self._since)
        self._since = now

    def log_engine_initialized(self) -> None: ...


class Counters:
    """The counts of all schedulers of an engine; makes vLLM's stat loggers."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.cores: list[CoreCounter] = []

    def __call__(self, config: VllmConfig, core: int) -> CoreCounter:
        self.cores.append(CoreCounter(self.now))
        return self.cores[-1]

    @property
    def tokens(self) -> int:
        return sum(core.tokens for core in self.cores)

    @property
    def recomputed_tokens(self) -> int:
        return sum(core.recomputed_tokens for core in self.cores)

    def integrate(self, *, frozen: bool = False) -> float:
        """Running requests, integrated over the seconds until now; `frozen`: no request ran since the last call."""
        for core in self.cores:
            core.integrate(frozen=frozen)
        return sum(core.busy_slot_s for core in self.cores)
