"""Feeds that keep a log, over episode workers in this process whose groups are in real segments."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.async_parts.clock import VirtualBackground
from rlframe.actors.background import Background
from rlframe.batch.records import to_record
from rlframe.experience.flow import RolloutFeed
from rlframe.experience.journal import Journal
from rlframe.record.frames import Location
from rlframe.record.generation import Generation
from rlframe.record.ledger_log import LedgerLog
from rlframe.record.segments import Segment, read_body
from rlframe.rollout.messages import EpisodeReport
from rlframe.training import GroupRecord
from tests.tiny.episodes import TinyEngine, TinyJudge
from tests.tiny.feed import make_feed, names, publish


class LoggedPool:
    """Wraps an episode pool: finished groups go to a segment, and come back from there."""

    def __init__(self, pool: object, ledger: Path) -> None:
        self._pool = pool
        self._ledger = ledger
        self._segment: Segment | None = None
        self._file = ""
        self.adopted: list[str] = []
        self.recalled: list[Location] = []
        self.lost = False  # a worker, so that no batch may be taken

    def __getattr__(self, name: str) -> object:
        return getattr(self._pool, name)

    async def follow(self, on_report: Callable[[str, EpisodeReport], None]) -> None:
        def log(worker: str, report: EpisodeReport) -> None:
            finished = [replace(each, record=self._written(each.key, each.record)) for each in report.finished]
            on_report(worker, replace(report, finished=finished))

        await self._pool.follow(log)  # pyright: ignore

    async def open_segments(self, folder: Path) -> None:
        if self._segment is not None:
            self._segment.close()
        self._segment, self._file = Segment(folder / "episodes-0.log"), f"{folder.name}/episodes-0.log"

    async def flush(self) -> bool:
        if self._segment is not None and not self.lost:
            self._segment.flush()
        return not self.lost

    async def adopt(self, folder: Path, epochs: list[int], keys: list[str]) -> None:
        assert all((folder / f"{epoch:06d}").is_dir() for epoch in epochs)
        self.adopted += keys

    async def recall(self, locations: list[Location]) -> list[GroupRecord]:
        self.recalled += locations
        bodies = [read_body(self._ledger, location) for location in locations]
        return [
            replace(to_record(body, body, "episodes-0"), location=location)
            for body, location in zip(bodies, locations, strict=True)
        ]

    def _written(self, key: str, record: GroupRecord) -> GroupRecord:
        if self._segment is None:
            return record
        byte = self._segment.add_group(key, record.body)
        return replace(record, location=Location(file=self._file, byte=byte))


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
        self.feed: RolloutFeed = make_feed(self.background, [self.engine], judge, warn=self.warnings.append, **settings)  # pyright: ignore
        self.pool = self.feed.episodes = LoggedPool(self.feed.episodes, self.folder)  # pyright: ignore
        generation = Generation.take(run_dir / "generations")
        self.feed.journal = Journal(self.feed.ledger, LedgerLog(self.folder, generation), self.pool)  # pyright: ignore
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
