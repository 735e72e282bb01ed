"""Checkpoints are sealed once the driver has read what ranks wrote; broken ones are named and skipped."""

import json
import time
from concurrent.futures import wait
from dataclasses import replace
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest

from rlframe.config.train import CheckpointConfig
from rlframe.errors import Fenced, LearnerLost, RunFailed, Stalled
from rlframe.record.generation import Generation
from rlframe.record.manifest import WriteReport, first_fault, report_on, seal
from rlframe.train.checkpoint import Checkpoints, newest_whole
from rlframe.train.signals import Stop


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


class WritingLearner:
    """A learner whose rank writes `weights <version>` when told to, by `write`, and can die while it does."""

    def __init__(self) -> None:
        self.version = 0
        self.dies = False
        self.writes = Event()
        self.writes.set()
        self.said = lambda report: report  # changes what the rank says it wrote
        self.copied: tuple[Path, Path | None, str] | None = None

    def save(self, folder: Path, export: Path | None) -> None:
        self.copied = (folder, export, f"weights {self.version}")

    def saved(self) -> list[WriteReport] | None:
        if not self.writes.is_set():
            return None
        report = report_on("learner-0", self.write)
        if self.dies:
            raise LearnerLost("learner-0 was killed while writing")
        return [self.said(report)]

    def write(self) -> list[Path]:
        assert self.copied
        folder, export, weights = self.copied
        files = {folder / "rank_0.pt": weights} | ({export / "config.json": "{}"} if export else {})
        for file, content in files.items():
            file.parent.mkdir(parents=True)
            file.write_text(content)
        return list(files)

    def leave_marks(self, folder: Path) -> list[WriteReport]:
        def write() -> list[Path]:
            (folder / ".mark").write_text("learner-0")
            return [folder / ".mark"]

        return [self.said(report_on("learner-0", write))]

    def load(self, folder: Path, version: int) -> None:
        self.version = version
        assert (folder / "rank_0.pt").read_text() == f"weights {version}"


class Part:
    """A part of the driver with a state that depends on the step."""

    def __init__(self, step: int) -> None:
        self.held = {"position": 8 * step, "out": [8 * step - 1]}

    def state(self) -> dict:
        return self.held

    def restore(self, state: dict) -> None:
        self.held = state


def checkpoints(
    folder: Path,
    learner: WritingLearner,
    step: int = 0,
    *,
    keep: int = 2,
    export: bool = False,
    on_error: str = "stop",
    part: Part | None = None,
    **named: Any,
) -> Checkpoints:
    config = CheckpointConfig.model_validate({"every": 1, "keep": keep, "export": export, "on_error": on_error})
    generation = named.pop("generation", None) or Generation.take(folder.parent / f"{folder.name}-drivers")
    named = {"timeout_s": 20, "warn": pytest.fail} | named
    return Checkpoints(config, folder, learner, {"feed": part or Part(step)}, generation, **named)


def reseal(folder: Path, content: str) -> None:
    """Another state, under a manifest that matches."""
    (folder / "state.json").write_text(content)
    (folder / "manifest.json").unlink()
    seal(folder, report_on("a test", lambda: [file for file in folder.rglob("*") if file.is_file()]).files)


def save(folder: Path, step: int, learner: WritingLearner | None = None, **settings: Any) -> Path:
    learner = learner or WritingLearner()
    learner.version = step
    with checkpoints(folder, learner, step, **settings) as opened:
        opened.save(step)
    return folder / f"step_{step:06d}"


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_without_a_whole_checkpoint_broken_ones_are_named(tmp_path):
    warnings: list[str] = []
    for step in (10, 20):
        (save(tmp_path, step) / "state.json").unlink()
    with pytest.raises(RunFailed, match=f"no whole checkpoint in {tmp_path}"):
        checkpoints(tmp_path, WritingLearner()).restore(warnings.append)
    assert [line.split("/")[-1] for line in warnings] == [
        f"step_0000{step} is skipped: state.json is missing" for step in (20, 10)
    ]
    assert newest_whole(tmp_path / "empty", pytest.fail) is None


def test_a_checkpoint_restores_the_learner_and_every_part(tmp_path):
    save(tmp_path, 4)
    learner, part = WritingLearner(), Part(0)
    opened = checkpoints(tmp_path, learner, part=part)
    assert opened.restore(pytest.fail) == 4
    assert (learner.version, part.held, opened.step) == (4, {"position": 32, "out": [31]}, 4)


@pytest.mark.parametrize("written", [None, 1, 3])
def test_a_checkpoint_of_another_format_is_refused_in_one_sentence(tmp_path, written):
    saved = save(tmp_path, 4)
    state = json.loads((saved / "state.json").read_text())
    assert state.pop("format") == 2
    content = json.dumps(state if written is None else state | {"format": written})
    reseal(saved, content)
    with pytest.raises(
        RunFailed, match=rf"step_000004 has format {written}, and this version of rlframe reads format 2: "
    ):
        checkpoints(tmp_path, WritingLearner()).restore(pytest.fail)


def test_of_five_checkpoints_the_newest_two_are_kept(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step, keep=2)
    assert steps(tmp_path) == ["step_000004", "step_000005"]


def test_an_export_is_in_the_checkpoint_and_its_manifest(tmp_path):
    saved = save(tmp_path, 1, export=True)
    (saved / "huggingface" / "config.json").unlink()
    assert first_fault(saved) == "huggingface/config.json is missing"


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path):
    learner = WritingLearner()
    learner.version = 1
    learner.writes.clear()
    with checkpoints(tmp_path, learner, 1) as opened:
        opened.save(1)
        learner.version = 2  # the next step
        assert opened.metrics()["time/checkpoint_s"] < 1
        assert steps(tmp_path) == []
        learner.writes.set()
        opened.wait()
        assert opened.metrics() == {"time/checkpoint_s": 0}
    assert (tmp_path / "step_000001" / "learner" / "rank_0.pt").read_text() == "weights 1"
    assert first_fault(tmp_path / "step_000001") is None
    assert steps(tmp_path) == ["step_000001"]


def test_a_second_checkpoint_waits_for_the_first(tmp_path):
    learner = WritingLearner()
    learner.writes.clear()
    with checkpoints(tmp_path, learner) as opened:
        start = time.monotonic()
        opened.save(1)
        Timer(0.5, learner.writes.set).start()
        opened.save(2)
        seconds = time.monotonic() - start
        assert "step_000001" in steps(tmp_path)
        assert seconds >= 0.5 and 0 < opened.metrics()["time/checkpoint_s"] <= seconds
        assert opened.metrics()["time/checkpoint_s"] == 0
    assert steps(tmp_path) == ["step_000001", "step_000002"]


def test_a_writer_that_never_ends_is_an_error_with_the_step(tmp_path):
    learner = WritingLearner()
    learner.writes.clear()
    opened = checkpoints(tmp_path, learner, timeout_s=0.1)
    with pytest.raises(Stalled, match=r"step_000001 was not written within 0.1 s"), opened:
        opened.save(1)


@pytest.mark.parametrize("notices", ["save", "metrics", "wait"])
def test_a_dead_rank_is_noticed_by_save_metrics_and_wait(tmp_path, notices):
    learner = WritingLearner()
    learner.dies = True
    opened = checkpoints(tmp_path, learner)
    opened.save(1)
    wait([opened._writing])
    with pytest.raises(LearnerLost, match="learner-0 was killed while writing"):
        {"save": lambda: opened.save(2), "metrics": opened.metrics, "wait": opened.wait}[notices]()
    assert (steps(tmp_path), opened.step) == ([], 0)


def test_a_checkpoint_of_dead_ranks_is_given_up_and_a_whole_one_kept(tmp_path):
    save(tmp_path, 1)
    learner, part = WritingLearner(), Part(0)
    learner.version, learner.dies = 2, True
    opened = checkpoints(tmp_path, learner, part=part)
    opened.save(2)
    opened.settle()
    assert (steps(tmp_path), learner.version) == (["step_000001"], 2)
    assert opened.restore_learner(parts=[]) == 1
    assert (learner.version, part.held, opened.step) == (1, Part(0).held, 1)
    assert opened.restore_learner(parts=["feed"]) == 1
    assert part.held == Part(1).held


def test_without_a_whole_checkpoint_new_ranks_keep_the_base_model(tmp_path):
    learner = WritingLearner()
    learner.version = 7
    assert checkpoints(tmp_path, learner).restore_learner(parts=["feed"]) == 0
    assert learner.version == 7  # the group has set it to 0


def test_an_error_waits_for_the_checkpoint_and_a_signal_does_not(tmp_path):
    for step, error in ((1, RuntimeError), (2, Stop)):
        learner = WritingLearner()
        learner.writes.clear()
        with pytest.raises(error), checkpoints(tmp_path, learner, step) as opened:
            opened.save(step)
            Timer(0.5, learner.writes.set).start()
            raise error
    assert steps(tmp_path) == ["step_000001"]


def full_disk(report: WriteReport) -> WriteReport:
    return replace(report, files=[], error="OSError: [Errno 28] No space left on device")


def test_a_full_disk_stops_the_run_and_older_checkpoints_stay(tmp_path):
    older, learner = [save(tmp_path, step) for step in (1, 2)], WritingLearner()
    learner.said = full_disk
    with pytest.raises(RunFailed, match=r"step_000003 was not written \(learner-0 on .*No space left .*=warn"):
        save(tmp_path, 3, learner)
    assert steps(tmp_path) == [folder.name for folder in older]
    assert newest_whole(tmp_path, pytest.fail) == older[1]


def test_a_full_disk_is_a_warning_if_so_configured_and_tried_again(tmp_path):
    save(tmp_path, 1, keep=1)
    learner, warnings, committed = WritingLearner(), [], []
    learner.version, learner.said = 2, full_disk
    named = {"keep": 1, "on_error": "warn", "warn": warnings.append, "on_commit": committed.append}
    with checkpoints(tmp_path, learner, **named) as opened:
        opened.restore(pytest.fail)
        learner.version = 2
        opened.save(2)
        opened.wait()
        assert (steps(tmp_path), opened.step) == (["step_000001"], 1)  # so a stopped run saves step 2 again
        learner.said = lambda report: report
        opened.save(2)
    assert steps(tmp_path) == ["step_000002"]
    assert ([line.split(" (")[0] for line in warnings], committed) == (
        [f"checkpoint {tmp_path}/step_000002 was not written"],
        [2],
    )


def test_a_file_that_the_driver_reads_otherwise_ends_the_run_unpruned(tmp_path):
    save(tmp_path, 1, keep=1)
    learner = WritingLearner()
    learner.said = lambda report: replace(report, host="node-7", files=[replace(report.files[0], bytes=99)])
    named = {"keep": 1, "on_error": "warn", "warn": pytest.fail}
    place = r"learner-0 on node-7 wrote \S+/learner/rank_0.pt, and the driver on \S+ has 9 bytes, not 99"
    with pytest.raises(RunFailed, match=place):
        save(tmp_path, 2, learner, **named)
    assert steps(tmp_path) == ["step_000001"]


def test_a_folder_that_ranks_do_not_share_is_found_at_the_start(tmp_path):
    learner = WritingLearner()
    checkpoints(tmp_path, learner).check_folder()
    assert steps(tmp_path) == []
    elsewhere = tmp_path / "another machine's"
    learner.said = lambda report: replace(report, files=[replace(report.files[0], path=elsewhere)])
    with pytest.raises(RunFailed, match=r"^run_dir: ranks write .* learner-0 on \S+ wrote .* does not see it\. Use"):
        checkpoints(tmp_path, learner).check_folder()


def test_a_fenced_driver_seals_no_checkpoint_and_removes_its_own(tmp_path):
    save(tmp_path, 1)
    older, newer = (Generation.take(tmp_path / "drivers") for _ in range(2))
    learner = WritingLearner()
    for said in (lambda report: report, full_disk):
        learner.said = said
        opened = checkpoints(tmp_path, learner, generation=newer, on_error="warn")
        opened.save(2)
        newer = Generation.take(tmp_path / "drivers")
        with pytest.raises(Fenced):
            opened.wait()
    with pytest.raises(Fenced):
        checkpoints(tmp_path, learner, generation=older).save(3)
    assert steps(tmp_path) == ["drivers", "step_000001"]


def test_what_a_dead_driver_left_unfinished_is_removed_at_the_start(tmp_path):
    (tmp_path / ".step_000004.partial-1" / "learner").mkdir(parents=True)
    whole = save(tmp_path, 3)
    checkpoints(tmp_path, WritingLearner()).check_folder()
    assert steps(tmp_path) == [whole.name]


def test_a_step_that_is_saved_again_replaces_its_checkpoint(tmp_path):
    (save(tmp_path, 1) / "learner" / "rank_0.pt").write_text("broken")
    assert first_fault(save(tmp_path, 1)) is None


def test_a_broken_newer_checkpoint_never_displaces_a_whole_one(tmp_path):
    save(tmp_path, 10)
    truncate(save(tmp_path, 20) / "state.json")  # so the run is resumed at step 10
    just_written = save(tmp_path, 12, keep=1)
    assert newest_whole(tmp_path, pytest.fail) == just_written
    assert steps(tmp_path) == ["step_000012"]
