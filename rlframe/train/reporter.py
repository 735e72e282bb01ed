"""`Reporter`: keeps `status.json` up to date from a thread, and says on the console who waits for what."""

from __future__ import annotations

import faulthandler
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, Self

from rlframe.actors.activity import longest
from rlframe.actors.waits import Wait, open_waits
from rlframe.actors.watch import Watch
from rlframe.errors import Fenced
from rlframe.record.operator_metrics import values
from rlframe.record.status import ActorStatus, EngineStatus, State, Status, WaitStatus, read_status, write_status
from rlframe.train.signals import Stop

if TYPE_CHECKING:
    from rlframe.actors.background import Background
    from rlframe.actors.replicas import Handle
    from rlframe.cluster.prometheus import Exporter
    from rlframe.experience.progress import Progress
    from rlframe.record.directory import RunDir
    from rlframe.record.generation import Generation
    from rlframe.train.health import Health

EVERY_S = 2.0  # between two writes
UNMOVED_S = 60.0  # of a wait without progress, beyond which the console says who waits for what
STACKS = "driver_stacks.txt"  # in the folder of logs
REASON_CHARS = 4000  # of an error, that the status keeps


class Reporter:
    """A `with` block around a run. Also a sink of metrics, for the figures of the last step.

    The file tells of a run that has died, too: as of its last two seconds. A write that fails changes nothing.
    """

    def __init__(
        self,
        files: RunDir,
        steps: int,
        warn: Callable[[str], None],
        generation: Generation | None = None,
        health: Health | None = None,
    ) -> None:
        """`warn` gets lines for the console, from the reporter's thread.

        `generation`, `health`: None in an evaluation, and `health` in a tuning run.
        """
        self.files = files
        self.steps = steps
        self.warn = warn
        self.step = 0
        self.generation = generation
        self.health = health
        self._exporter: Exporter | None = None
        self._sending = Lock()
        self._metrics_url = ""
        self._state: State = "starting"
        self._reason = ""
        self._started = time.time()
        self._metrics: dict[str, float | None] = {}
        self._watch = Watch({})
        self._progress: Progress | None = None
        self._silence_s = UNMOVED_S  # after which the console says more
        self._end = Event()
        self._thread = Thread(target=self._run, name="status", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._end.set()
        self._thread.join()
        self._state = "finished" if kind is None else "stopped" if issubclass(kind, Stop) else "failed"
        self._reason = str(error or "")[:REASON_CHARS]
        self._write(self.status())

    def follow(self, background: Background, handles: Mapping[str, Handle], progress: Progress | None = None) -> None:
        """Begins to ask the run's actors; `progress` knows the engines, None in a run without any."""

        async def begin() -> None:
            self._watch = Watch(handles)
            background.start(self._watch.follow())

        self._progress = progress
        background.run(begin())
        self._state = "running"

    @contextmanager
    def exporting(self, exporter: Exporter) -> Iterator[None]:
        """Sends each status as metrics for operators, while the `with` block runs; Ray must be there all the time."""
        self._metrics_url, self._exporter = exporter.url, exporter
        try:
            yield
        finally:
            with self._sending:
                self._exporter = None

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.step = step
        self._metrics = {key: value if math.isfinite(value) else None for key, value in metrics.items()}

    def close(self) -> None:
        """The end of a sink; the reporter itself ends with its `with` block."""

    def status(self) -> Status:
        now, work = time.monotonic(), longest()
        engines = self._engines(now)
        actors = []
        for name, watched in self._watch.actors().items():
            doing = watched.doing_now(now)
            text, seconds = doing or (None, 0.0)
            actors.append(ActorStatus(name=name, doing=text, seconds=seconds, silent_s=watched.silent_s(now)))
        moved = {actor.name: actor.seconds for actor in actors if actor.doing}
        moved |= {engine.name: engine.loading_s or engine.silent_s for engine in engines if engine.completions}
        if self._progress and (unscored_s := self._progress.unscored_s(now)) is not None:
            moved["reward-workers"] = unscored_s
        return Status(
            state=self._state,
            reason=self._reason,
            step=self.step,
            steps=self.steps,
            host=socket.gethostname(),
            pid=os.getpid(),
            generation=self.generation and self.generation.number,
            started=self._started,
            time=time.time(),
            doing=f"{work.text} for {work.seconds:.0f} s" if work else None,
            waits=[_wait_status(wait, moved, now) for wait in open_waits()],
            engines=engines,
            actors=actors,
            metrics=self._metrics,
            metrics_url=self._metrics_url,
            **self._counts(),
        )

    def _counts(self) -> dict[str, Any]:
        if (health := self.health) is None:
            return {}
        return {
            "engine_states": health.engine_states(),
            "prompt_states": health.prompt_states(),
            "verdicts": health.verdicts(),
            "outages": health.look(),
        }

    def _engines(self, now: float) -> list[EngineStatus]:
        """The engines by their last reports; the event loop's clock is time.monotonic."""
        return [
            EngineStatus(
                name=engine.report.name,
                completions=engine.report.completions,
                tokens_per_s=engine.tokens_per_s,
                silent_s=engine.report.silent_s and engine.report.silent_s + now - engine.at,
                loading_s=None if engine.loading_since is None else now - engine.loading_since,
                version=engine.report.version,
            )
            for engine in (self._progress.engines() if self._progress else [])
        ]

    def _run(self) -> None:
        while not self._end.wait(EVERY_S):
            status = self.status()
            self._write(status)
            self._say(status)
            with self._sending:
                if self._exporter is not None:
                    self._exporter.send(values(status))

    def _say(self, status: Status) -> None:
        """Tells the console once a wait has not moved for a minute, and again after two, four, eight minutes."""
        waits = [wait for wait in status.waits if wait.unmoved_s >= UNMOVED_S]
        if not waits:
            self._silence_s = UNMOVED_S
        elif (unmoved_s := max(wait.unmoved_s for wait in waits)) >= self._silence_s:
            self._silence_s = max(2 * self._silence_s, UNMOVED_S)
            texts = ", and for ".join(wait.text for wait in waits)
            lines = "; ".join(status.lines()) or "no actor says what it does"
            self.warn(f"no progress for {unmoved_s:.0f} s while the run waits for {texts}: {lines}")
            self._write_stacks()

    def _write_stacks(self) -> None:
        """Appends the call stacks of all threads of the driver to a file, for a wait that is the driver's own fault."""
        with suppress(OSError):
            self.files.logs.mkdir(parents=True, exist_ok=True)
            with (self.files.logs / STACKS).open("a") as file:
                file.write(f"\n{time.strftime('%Y-%m-%d %H:%M:%S')}, step {self.step}\n")
                file.flush()
                faulthandler.dump_traceback(file)

    def _write(self, status: Status) -> None:
        with suppress(OSError, Fenced):  # a full disk, whose next write may succeed; a newer driver, which writes
            if self.generation is not None:
                self.generation.check()
            write_status(self.files.status, status)


def _wait_status(wait: Wait, moved: Mapping[str, float], now: float) -> WaitStatus:
    """`moved`: name of an actor -> seconds since its last progress."""
    concerned = [seconds for name, seconds in moved.items() if wait.concerns(name)]
    unmoved_s = min([now - wait.moved_at, *concerned])
    return WaitStatus(text=str(wait), seconds=now - wait.since, unmoved_s=unmoved_s, bound_s=wait.bound_s)


def last_word(files: RunDir) -> Status | None:
    """The last status of the run's previous driver; None: it wrote none that this version of rlframe can read."""
    try:
        return read_status(files.status)
    except (OSError, ValueError):
        return None
