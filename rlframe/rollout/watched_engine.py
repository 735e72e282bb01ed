"""`WatchedEngine`: an engine as its episode worker sees it, with its unfinished completions and its progress."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from rlframe.rollout.messages import EngineProgress, EngineReport, EngineSeat

if TYPE_CHECKING:
    from rlframe.rollout.sampler import Call

NOTHING_YET = EngineProgress(tokens=0, version=0, loading=False, busy_slot_s=0.0, recomputed_tokens=0)


@dataclass(slots=True, kw_only=True, eq=False)
class WatchedEngine:
    """An engine, and the seconds since it made progress. Pure: the caller tells the time.

    An engine is silent while it has completions, sends no token and does not say that it loads weights. An engine that
    does not answer at all is silent too: from its last answer on.
    """

    seat: EngineSeat
    completions: int = 0  # unfinished, at the engine
    moved_at: float = 0.0  # time of the last new token, load or completion, while the engine has completions
    refusals_in_a_row: int = 0
    calls: list[Call] = field(default_factory=list)  # that run
    progress: EngineProgress = NOTHING_YET  # the latest answer
    asking: bool = False  # for progress, at the moment
    asked_at: float = float("-inf")

    def add(self, completions: int, now: float) -> None:
        """Notes completions that the engine is asked for."""
        if not self.completions:
            self.moved_at = now
        self.completions += completions

    def remove(self, now: float) -> None:
        """Notes a completion that has come, or that was refused and is asked for again."""
        self.completions -= 1
        self.moved_at = now

    def should_ask(self, now: float, every_s: float, newest: int) -> bool:
        """True if the engine has work, or a new version to load, and was not asked for `every_s`."""
        unknown = self.progress is NOTHING_YET or self.progress.loading or self.progress.version < newest
        return not self.asking and now - self.asked_at >= every_s and bool(self.completions or unknown)

    def answer(self, progress: EngineProgress, now: float) -> None:
        if progress.tokens != self.progress.tokens or progress.loading:
            self.moved_at = now
        self.progress = progress

    def report(self, now: float) -> EngineReport:
        silent_s = now - self.moved_at if self.completions else 0.0
        return EngineReport(
            **asdict(self.progress), name=self.seat.name, completions=self.completions, silent_s=silent_s
        )
