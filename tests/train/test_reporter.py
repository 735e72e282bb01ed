"""The reporter writes a run's status while it runs and at its end, and says what nothing moves for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from rlframe.actors.activity import doing
from rlframe.actors.background import Background
from rlframe.actors.in_process import InProcess
from rlframe.actors.waits import waiting
from rlframe.experience.progress import Progress
from rlframe.record.directory import RunDir
from rlframe.record.generation import Generation
from rlframe.record.status import Status, read_status
from rlframe.rollout.messages import EngineReport, EpisodeReport
from rlframe.train.reporter import Reporter
from rlframe.train.signals import Stop

WITHIN_S = 60.0


@pytest.fixture
def files(tmp_path: Path) -> RunDir:
    (tmp_path / "run").mkdir()
    return RunDir(tmp_path / "run")


def awaited(files: RunDir, reached: Any) -> Status:
    """The first status on disk that `reached` accepts."""
    deadline = time.monotonic() + WITHIN_S
    while not (files.status.exists() and reached(read_status(files.status))):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return read_status(files.status)


def test_a_start_is_written_with_its_phase_and_then_its_end(files: RunDir):
    with Reporter(files, 100, print) as reporter, doing("preparing the model"):
        status = awaited(files, lambda status: status.doing)
        assert status.state == "starting" and status.doing.startswith("preparing the model for ")
        reporter.log(7, {"loss": 0.25, "grad_norm": float("nan")})
    status = read_status(files.status)
    assert (status.state, status.reason, status.step, status.steps) == ("finished", "", 7, 100)
    assert status.metrics == {"loss": 0.25, "grad_norm": None}


@pytest.mark.parametrize("error, state", [(Stop("SIGTERM"), "stopped"), (RuntimeError("no memory"), "failed")])
def test_the_end_by_an_error_is_written_with_its_reason(files: RunDir, error: BaseException, state: str):
    with pytest.raises(type(error)), Reporter(files, 100, print):
        raise error
    status = read_status(files.status)
    assert (status.state, status.reason) == (state, str(error))


def test_a_disk_that_takes_nothing_does_not_end_the_run(tmp_path: Path):
    (tmp_path / "file").touch()
    with Reporter(RunDir(tmp_path / "file" / "run"), 100, print):
        pass


def test_a_driver_that_is_fenced_writes_no_more(files: RunDir):
    older = Generation.take(files.generations)
    with Reporter(files, 100, print, older):
        assert awaited(files, lambda status: True).generation == 1
        newer = Generation.take(files.generations)
        written = files.status.read_bytes()
    with Reporter(files, 100, print, newer):
        assert files.status.read_bytes() == written
    assert read_status(files.status).generation == 2


class Rank:
    def activity(self) -> Any:
        with doing("backward of micro-batch 3 of 8"):
            from rlframe.actors.activity import longest

            return longest()


def test_actors_are_asked_and_waits_are_written_with_them(files: RunDir):
    background = Background("under test", stall_timeout_s=1800.0)
    try:
        with Reporter(files, 100, print) as reporter:
            reporter.follow(background, {"learner-1": InProcess(Rank())}, Progress(1800.0))
            with waiting(["learner-1"], "take step 7", 1800.0, "cluster.stall_timeout_s"):
                status = awaited(files, lambda status: status.actors and status.waits)
    finally:
        background.close()
    assert status.state == "running"
    [wait], [actor] = status.waits, status.actors
    assert wait.text == "learner-1 to take step 7 (cluster.stall_timeout_s=1800)"
    assert (actor.name, actor.doing) == ("learner-1", "backward of micro-batch 3 of 8")


def report(tokens: int, silent_s: float, scoring_silent_s: float = 0.0) -> EpisodeReport:
    engine = EngineReport(
        name="rollout-3",
        tokens=tokens,
        version=6,
        loading=False,
        busy_slot_s=0.0,
        recomputed_tokens=0,
        completions=14,
        silent_s=silent_s,
    )
    scoring = {"reward-0": 2} if scoring_silent_s else {}
    return EpisodeReport(orders=1, completions=14, scoring=scoring, scoring_silent_s=scoring_silent_s, engines=[engine])


@pytest.fixture
def stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no age depends on how long a test takes."""
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)


def unmoved(folder: Path, waited_s: float, reports: list[EpisodeReport]) -> tuple[int, list[str]]:
    """Seconds without progress of a wait for groups after reports that have just come, and the console's lines."""
    said: list[str] = []
    reporter = Reporter(RunDir(folder), 100, said.append)
    reporter._progress = Progress(1800.0)
    for each in reports:
        reporter._progress.note("episodes-0", each, time.monotonic())
    with waiting(["rollout", "reward"], "sample and score the 8 groups of step 7", 1800.0, "a.bound") as wait:
        wait.since = wait.moved_at = time.monotonic() - waited_s
        status = reporter.status()
        for _ in range(2):
            reporter._say(status)
        return int(status.waits[0].unmoved_s), said


@pytest.mark.usefixtures("stopped_clock")
def test_a_wait_in_which_tokens_or_verdicts_come_is_never_told(tmp_path: Path):
    assert unmoved(tmp_path, 1000.0, [report(tokens=500, silent_s=0.1)]) == (0, [])
    assert unmoved(tmp_path, 1000.0, [report(tokens=500, silent_s=90.0, scoring_silent_s=2.0)]) == (2, [])


@pytest.mark.usefixtures("stopped_clock")
def test_after_a_minute_without_progress_the_console_tells_who_waits_for_whom_once(tmp_path: Path):
    seconds, said = unmoved(tmp_path, 1000.0, [report(tokens=500, silent_s=70.0)])
    assert seconds == 70
    assert said == [
        "no progress for 70 s while the run waits for rollout, reward to sample and score the 8 groups of step 7 "
        "(a.bound=1800): rollout-3: 14 sequences, no token for 70 s"
    ]
    [stacks] = [file.read_text() for file in (tmp_path / "logs").iterdir()]
    assert stacks.count(", step 0\n") == 1 and "in unmoved\n" in stacks  # the function that waits


@pytest.mark.usefixtures("stopped_clock")
def test_a_wait_is_never_unmoved_for_longer_than_it_lasts(tmp_path: Path):
    assert unmoved(tmp_path, 2.0, [report(tokens=500, silent_s=70.0)]) == (2, [])
