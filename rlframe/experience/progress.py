"""`Progress`: who works and who waits, by the reports of episode workers. Pure; time is an argument.

Progress is a verdict or the end of a load of weights. Engines without a token are replaced by their episode workers
(`rollout/sampler.py`), and end no run.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlframe.rollout.messages import EngineReport, EpisodeReport

BOUND = "cluster.stall_timeout_s"
NAMED_ENGINES = 16  # that a message lists


@dataclass(slots=True, kw_only=True)
class ReportedEngine:
    """An engine's last report, with what the reports before it tell."""

    report: EngineReport
    at: float  # time of the report
    tokens_per_s: float = 0.0  # between the last two reports
    loading_since: float | None = None  # None: it loads no weights

    def follow(self, report: EngineReport, now: float) -> None:
        """Notes the engine's next report."""
        if now > self.at:
            self.tokens_per_s = max(0, report.tokens - self.report.tokens) / (now - self.at)
        if not report.loading:
            self.loading_since = None
        elif self.loading_since is None or report.version != self.report.version:  # the next load has begun
            self.loading_since = now
        self.report, self.at = report, now


class Progress:
    """Finds the actor that a stuck run waits for. A healthy run passes every check at any length of completions."""

    def __init__(self, stall_timeout_s: float) -> None:
        """`stall_timeout_s`: seconds without a verdict, the end of a load, or a report."""
        self.stall_timeout_s = stall_timeout_s
        self._engines: dict[str, dict[str, ReportedEngine]] = {}  # worker -> its engines by name
        self._workers: dict[str, tuple[float, EpisodeReport]] = {}  # name -> time and content of the last report
        self._stuck_engines: dict[str, str] = {}  # worker -> problem, by its last report on engines
        self._stuck_rewards: dict[str, str] = {}  # worker -> problem, by its last report
        self._active_at = 0.0  # time of the last report with any work

    def begin_wait(self, now: float) -> None:
        """Starts the clocks of a wait. Time before it does not count: nobody asked for anything, or a load that only
        the learner can repair waited for the learner's step.
        """
        self._active_at = now
        for worker, engines in self._engines.items():
            for engine in engines.values():
                if engine.loading_since is not None:
                    engine.loading_since = now
                    self._stuck_engines.pop(worker, None)  # until the next report

    def note(self, worker: str, report: EpisodeReport, now: float) -> None:
        """Follows a worker's report."""
        self._workers[worker] = (now, report)
        if _works(report):
            self._active_at = now
        _set(self._stuck_rewards, worker, self._stuck_reward(report))
        if report.engines is not None:  # other reports tell nothing of the engines
            known = self._engines.get(worker, {})
            self._engines[worker] = {engine.name: _reported(known, engine, now) for engine in report.engines}
            _set(self._stuck_engines, worker, self._stuck_engine(worker, now))

    def forget(self, worker: str) -> None:
        """Leaves out a worker that is lost: it sends no more reports."""
        for known in (self._workers, self._engines, self._stuck_engines, self._stuck_rewards):
            known.pop(worker, None)

    def problem(self, now: float) -> str | None:
        """The reason why a wait is hopeless, with the actor's name; None: everybody gets on."""
        for problem in chain(self._stuck_engines.values(), self._stuck_rewards.values()):
            return problem
        for name, (reported_at, _) in self._workers.items():
            if now - reported_at >= self.stall_timeout_s:
                return f"episode worker {name} has sent no report for {self._seconds(now - reported_at)}"
        if now - self._active_at >= self.stall_timeout_s:
            return (
                "nothing is in flight at engines and reward workers, and yet a step waits for groups, for "
                f"{self._seconds(now - self._active_at)}: a bug of rlframe"
            )
        return None

    def engines(self) -> list[ReportedEngine]:
        """Every engine by its last report. For any thread."""
        return [engine for engines in list(self._engines.values()) for engine in engines.values()]

    def unscored_s(self, now: float) -> float | None:
        """Seconds since the last verdict, while verdicts are awaited; None: none is awaited. For any thread."""
        reports = list(self._workers.values())
        return min((report.scoring_silent_s + now - at for at, report in reports if report.scoring), default=None)

    def describe(self) -> str:
        """A line for each engine, the longest silent first, and for each reward worker with calls in flight."""
        engines = sorted(self.engines(), key=lambda engine: -engine.report.silent_s)
        lines = [_engine_line(engine) for engine in engines[:NAMED_ENGINES]]
        if len(engines) > NAMED_ENGINES:
            lines.append(f"{len(engines) - NAMED_ENGINES} more engines")
        for name, (_, report) in self._workers.items():
            if report.scoring:
                calls = ", ".join(f"{reward} has {calls}" for reward, calls in report.scoring.items())
                lines.append(
                    f"verdicts for {name}: {calls} in flight; the last came {report.scoring_silent_s:.0f} s ago"
                )
        return "\n".join(f"  {line}" for line in lines)

    def _stuck_engine(self, worker: str, now: float) -> str | None:
        for watched in self._engines[worker].values():
            engine, since = watched.report, watched.loading_since
            if since is not None and now - since >= self.stall_timeout_s:
                return f"{engine.name} has not ended the load of new weights after {self._seconds(now - since)}"
        return None

    def _stuck_reward(self, report: EpisodeReport) -> str | None:
        if report.scoring_silent_s >= self.stall_timeout_s:
            names = ", ".join(report.scoring) or "no worker has a call"
            return f"no reward worker gave a verdict for {self._seconds(report.scoring_silent_s)} ({names})"
        return None

    def _seconds(self, seconds: float) -> str:
        return f"{seconds:.0f} s ({BOUND}={self.stall_timeout_s:g})"


def _works(report: EpisodeReport) -> bool:
    loads = any(engine.loading for engine in report.engines or ())
    return bool(report.completions or report.scoring or report.scoring_silent_s or report.finished or loads)


def _reported(known: dict[str, ReportedEngine], engine: EngineReport, now: float) -> ReportedEngine:
    """The engine after its next report."""
    if engine.name not in known:
        return ReportedEngine(report=engine, at=now, loading_since=now if engine.loading else None)
    known[engine.name].follow(engine, now)
    return known[engine.name]


def _set(problems: dict[str, str], worker: str, problem: str | None) -> None:
    if problem is None:
        problems.pop(worker, None)
    else:
        problems[worker] = problem


def _engine_line(engine: ReportedEngine) -> str:
    report = engine.report
    silence = f", no token for {report.silent_s:.0f} s" if report.silent_s >= 1 else ""
    load = ", loads new weights" if report.loading else ""
    return (
        f"{report.name}: {report.completions} completions, {engine.tokens_per_s:.0f} tokens/s{silence}, "
        f"version {report.version}{load}"
    )
