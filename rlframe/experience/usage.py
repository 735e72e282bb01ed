"""`Usage`: tokens and slots of the engines between two steps, by the reports of episode workers. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlframe.rollout.messages import EngineReport, EpisodeReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """An engine's report, and its time."""

    at: float
    engine: EngineReport


class Usage:
    """Metrics of the engines since the last step. Engines report about once a second, each at its own time.

    Speed is the tokens of finished groups, divided by the seconds in which any completion was unfinished. The idle
    share of slots counts every second: with 4 slots, 10 seconds between two reports, and 8 slot seconds in use, 80 %
    were idle.
    """

    def __init__(self, slots: int) -> None:
        """`slots`: completions that an engine generates at the same time."""
        self.slots = slots
        self._last: dict[str, Reading] = {}
        self._base: dict[str, Reading] = {}  # as of the last step
        self._finished_tokens = 0  # since the last step
        self._sampling_s = 0.0  # likewise, with unfinished completions anywhere
        self._sampling = False
        self._advanced_at = 0.0
        self._refusals: dict[str, int] = {}  # episode worker -> since the start
        self._reported_refusals = 0

    def advance(self, now: float, sampling: bool) -> None:
        """`sampling`: from now on there are unfinished completions."""
        if self._sampling:
            self._sampling_s += now - self._advanced_at
        self._sampling, self._advanced_at = sampling, now

    def finish(self, tokens: int) -> None:
        """Counts the sampled tokens of a group that is finished."""
        self._finished_tokens += tokens

    def note(self, worker: str, report: EpisodeReport, now: float) -> None:
        """Follows a worker's report, after `advance`."""
        self._refusals[worker] = report.refusals
        for engine in filter(lambda engine: engine.answered, report.engines or ()):
            reading = Reading(at=now, engine=engine)
            last = self._last.get(engine.name)
            if last is None or engine.tokens < last.engine.tokens:  # a new engine, perhaps under an old name
                self._base[engine.name] = reading
            self._last[engine.name] = reading

    def take(self) -> dict[str, float]:
        """The metrics since the last call. Without a report since then there is no idle share."""
        pairs = [(self._base[name], last) for name, last in self._last.items()]
        self._base = dict(self._last)
        seconds = sum(last.at - base.at for base, last in pairs)
        refusals = sum(self._refusals.values())
        metrics = {
            "rollout/tokens_per_s": self._finished_tokens / self._sampling_s if self._sampling_s else 0.0,
            "rollout/recomputed_tokens": float(
                sum(last.engine.recomputed_tokens - base.engine.recomputed_tokens for base, last in pairs)
            ),
            "rollout/refused": float(refusals - self._reported_refusals),
        }
        self._reported_refusals, self._finished_tokens, self._sampling_s = refusals, 0, 0.0
        if seconds:
            busy = sum(last.engine.busy_slot_s - base.engine.busy_slot_s for base, last in pairs)
            metrics["rollout/slots_idle"] = min(1.0, max(0.0, 1 - busy / (self.slots * seconds)))
        return metrics
