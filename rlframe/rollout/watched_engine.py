"""`WatchedEngine`: an engine as its episode worker sees it, with its unfinished completions and its progress."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from rlframe.rollout.messages import EngineBounds, EngineProgress, EngineReport, EngineSeat

if TYPE_CHECKING:
    from rlframe.rollout.call import Call
    from rlframe.rollout.unfinished import Unfinished

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
    sampled: bool = False  # a token, since it joined
    refusals_in_a_row: int = 0
    calls: dict[str, Call] = field(default_factory=dict)  # that run, by name
    progress: EngineProgress = NOTHING_YET  # the latest answer, without partials
    asking: bool = False  # for progress, at the moment
    asked_at: float = float("-inf")
    leaving: bool = False  # gets no more work, and gives its completions back
    lost: bool = False  # its answers are ignored: others sample its completions

    def add(self, completions: int, now: float) -> None:
        """Notes completions that the engine is asked for."""
        if not self.completions:
            self.moved_at = now
        self.completions += completions

    def remove(self, now: float) -> None:
        """Notes a completion that has come, or that was refused and is asked for again."""
        self.completions -= 1
        self.moved_at = now
        self.sampled = True

    def should_ask(self, now: float, every_s: float, newest: int) -> bool:
        """True if the engine has work, or a new version to load, and was not asked for `every_s`."""
        unknown = self.progress is NOTHING_YET or self.progress.loading or self.progress.version < newest
        return not self.asking and now - self.asked_at >= every_s and bool(self.completions or unknown)

    def answer(self, progress: EngineProgress, now: float) -> None:
        known = self.progress is not NOTHING_YET
        if progress.tokens != self.progress.tokens or progress.loading:
            self.moved_at = now
        self.sampled |= known and progress.tokens > self.progress.tokens
        self.progress = replace(progress, partials=None)

    def silent_s(self, now: float) -> float:
        """Seconds without progress, while the engine has completions."""
        return now - self.moved_at if self.completions else 0.0

    def silence(self, now: float, bounds: EngineBounds) -> str | None:
        """The reason to replace the engine, or None."""
        bound_s = bounds.silence_s if self.sampled else max(bounds.silence_s, bounds.first_token_s)
        if (silent_s := self.silent_s(now)) < bound_s:
            return None
        key = "rollout.silence_s" if self.sampled else "cluster.stall_timeout_s, until an engine's first token"
        asked = "and does not answer" if self.asking else "though it answers"
        return f"it sampled no token of {self.completions} completions for {silent_s:.0f} s ({key}), {asked}"

    def has_last_chance(self, but: str) -> bool:
        """True if it samples a completion that one more death ends, of another order than `but`."""
        return any(
            completion.last_chance and completion.order.key != but
            for call in self.calls.values()
            for completion in call.completions()
        )

    def give_up(self) -> list[Unfinished]:
        """Ignores all further answers -> the completions to come."""
        completions = [completion for call in self.calls.values() for completion in call.completions()]
        for call in self.calls.values():
            call.owed = {}
        self.lost, self.calls, self.completions = True, {}, 0
        return completions

    def report(self, now: float) -> EngineReport:
        progress = {each.name: getattr(self.progress, each.name) for each in fields(self.progress)}
        return EngineReport(
            **progress,
            name=self.seat.name,
            completions=self.completions,
            silent_s=self.silent_s(now),
            answered=self.progress is not NOTHING_YET,
        )
