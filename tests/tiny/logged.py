"""Feeds that keep a log, over episode workers in this process."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.async_parts.clock import VirtualBackground
from rlframe.actors.background import Background
from rlframe.experience.flow import RolloutFeed
from rlframe.experience.journal import Journal
from rlframe.record.generation import Generation
from rlframe.record.ledger_log import LedgerLog
from tests.tiny.episodes import TinyEngine, TinyJudge
from tests.tiny.feed import make_feed, names, publish


class LoggedRun:
    """A driver's feed over an engine, at the version that the learner has reached. `kill` leaves the disk as it is."""

    def __init__(
        self,
        run_dir: Path,
        *,
        background: Background | None = None,
        engine: TinyEngine | None = None,
        judge: TinyJudge | None = None,
        **settings: object,
    ) -> None:
        self.folder = run_dir / "ledger"
        self.engine = engine or TinyEngine()
        self.warnings: list[str] = []
        self.background = background or VirtualBackground("logged", stall_timeout_s=60)
        warn = self.warnings.append
        self.feed: RolloutFeed = make_feed(self.background, [self.engine], judge, warn=warn, **settings)  # pyright: ignore
        log = LedgerLog(self.folder, Generation.take(run_dir / "generations"))
        self.journal = self.feed.journal = Journal(self.feed.ledger, log, self.feed.episodes)
        self.feed.__enter__()

    def begin(self, step: int = 0, *, resume: bool = False) -> LoggedRun:
        self.feed.open_log(step, resume=resume)
        self.version = step
        if not self.feed.replaying:
            self.publish()
        return self

    def step(self, count: int = 2) -> list[str]:
        """A take and a step of the learner -> names of the prompts. Engines get versions after the replay only."""
        groups = self.feed.take(count)
        self.version += 1
        if not self.feed.replaying:
            self.publish()
        return names(groups)

    def publish(self) -> None:
        publish(self.feed, [self.engine], self.version)

    def checkpoint(self, *, whole: bool = True) -> dict[str, object]:
        """Saves the step reached -> the feed's part."""
        self.feed.begin_epoch(self.version)
        state = self.feed.state()
        if whole:
            self.feed.commit(self.version)
        return state

    def killed(self, run_dir: Path) -> Path:
        """Ends the driver -> a copy of the run's folder as the disk had it."""
        shutil.copytree(self.folder, run_dir / "ledger")
        self.close()
        return run_dir

    def close(self) -> None:
        self.feed.__exit__()
        self.background.run(self.feed.episodes.close())
        self.background.close()


def taken(run: LoggedRun, steps: int) -> list[list[str]]:
    return [run.step() for _ in range(steps)]


def heads(folder: Path) -> Sequence[str]:
    return sorted(path.name for path in folder.iterdir())
