"""Whole checkpoints are found; broken ones are named and skipped."""

import json
import time
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest

from rlframe.config.train import CheckpointConfig
from rlframe.errors import RunFailed, Stalled
from rlframe.train.checkpoint import Checkpoints, first_fault, newest_whole, seal
from rlframe.train.signals import Stop


def whole(folder: Path, step: int) -> Path:
    """A sealed checkpoint with a file in it, and one in a folder in it."""
    here = folder / f"step_{step:06d}"
    (here / "learner").mkdir(parents=True)
    (here / "state.json").write_text(json.dumps({"step": step}))
    (here / "learner" / "rank_0.pt").write_bytes(bytes(range(200)))
    seal(here)
    return here


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def change(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)


DAMAGE = [
    ("state.json", truncate, "state.json has 11 bytes, not 12"),
    ("state.json", change, "state.json has other content than was saved"),
    ("state.json", Path.unlink, "state.json is missing"),
    ("learner/rank_0.pt", truncate, "learner/rank_0.pt has 199 bytes, not 200"),
    ("learner/rank_0.pt", change, "learner/rank_0.pt has other content than was saved"),
    ("learner/rank_0.pt", Path.unlink, "learner/rank_0.pt is missing"),
    ("manifest.json", truncate, "manifest.json is cut short"),
    ("manifest.json", lambda file: file.write_bytes(b""), "manifest.json is cut short"),
    ("manifest.json", lambda file: file.write_bytes(b'{"\xff\xfe'), "manifest.json is cut short"),
    ("manifest.json", Path.unlink, "manifest.json is missing"),
]


def test_a_sealed_checkpoint_is_whole_and_the_newest(tmp_path):
    whole(tmp_path, 10)
    newest = whole(tmp_path, 20)
    warnings: list[str] = []
    assert first_fault(newest) is None
    assert newest_whole(tmp_path, warnings.append) == newest
    assert warnings == []


@pytest.mark.parametrize("name, damage, problem", DAMAGE)
def test_a_damaged_file_is_named_and_an_older_checkpoint_taken(tmp_path, name, damage, problem):
    older, broken = whole(tmp_path, 9), whole(tmp_path, 10)
    damage(broken / name)
    warnings: list[str] = []
    assert newest_whole(tmp_path, warnings.append) == older
    assert len(warnings) == 1
    assert warnings[0].startswith(f"checkpoint {broken} is skipped: {problem}")


def test_a_partial_folder_is_no_checkpoint(tmp_path):
    older = whole(tmp_path, 10)
    whole(tmp_path, 20).rename(tmp_path / ".step_000020.partial")
    assert newest_whole(tmp_path, pytest.fail) == older


def test_without_a_whole_checkpoint_every_one_is_named(tmp_path):
    for step in (10, 20):
        (whole(tmp_path, step) / "state.json").unlink()
    warnings: list[str] = []
    with pytest.raises(RunFailed, match=f"no whole checkpoint in {tmp_path}"):
        newest_whole(tmp_path, warnings.append)
    assert ["step_000020" in warnings[0], "step_000010" in warnings[1]] == [True, True]
    with pytest.raises(RunFailed):
        newest_whole(tmp_path / "empty", pytest.fail)


class WritingLearner:
    """A learner whose shard says its version, which writes when told to, and can die while it does."""

    def __init__(self) -> None:
        self.version = 0
        self.dies = False
        self.writes = Event()
        self.writes.set()
        self.copied: tuple[Path, Path | None, str] | None = None

    def save(self, folder: Path, export: Path | None) -> None:
        self.copied = (folder, export, f"weights {self.version}")

    def saved(self) -> bool:
        if not self.writes.is_set():
            return False
        assert self.copied
        folder, export, weights = self.copied
        folder.mkdir()
        (folder / "rank_0.pt").write_text(weights)
        if self.dies:
            raise RuntimeError("learner-0 was killed while writing")
        if export:
            export.mkdir()
            (export / "config.json").write_text("{}")
        return True

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
    folder: Path, learner: WritingLearner, step: int = 0, keep: int = 2, export: bool = False, part: Part | None = None
) -> Checkpoints:
    config = CheckpointConfig(every=1, keep=keep, export=export)
    return Checkpoints(config, folder, learner, {"feed": part or Part(step)}, timeout_s=20)


def save(folder: Path, step: int, learner: WritingLearner | None = None, **settings: Any) -> Path:
    learner = learner or WritingLearner()
    learner.version = step
    with checkpoints(folder, learner, step, **settings) as opened:
        opened.save(step)
    return folder / f"step_{step:06d}"


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


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
    (saved / "state.json").write_text(json.dumps(state if written is None else state | {"format": written}))
    (saved / "manifest.json").unlink()
    seal(saved)
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
        assert steps(tmp_path) == [".step_000001.partial"]
        learner.writes.set()
        opened.wait()
        assert opened.metrics() == {"time/checkpoint_s": 0}
    assert (tmp_path / "step_000001" / "learner" / "rank_0.pt").read_text() == "weights 1"
    assert first_fault(tmp_path / "step_000001") is None


def test_a_second_checkpoint_waits_for_the_first(tmp_path):
    learner = WritingLearner()
    learner.writes.clear()
    with checkpoints(tmp_path, learner) as opened:
        opened.save(1)
        Timer(0.5, learner.writes.set).start()
        opened.save(2)
        assert steps(tmp_path)[-1] == "step_000001"
        assert 0.4 < opened.metrics()["time/checkpoint_s"] < 5
        assert opened.metrics()["time/checkpoint_s"] == 0
    assert steps(tmp_path) == ["step_000001", "step_000002"]


def test_a_writer_that_never_ends_is_an_error_with_the_step(tmp_path):
    learner = WritingLearner()
    learner.writes.clear()
    config = CheckpointConfig(every=1, keep=1, export=False)
    opened = Checkpoints(config, tmp_path, learner, {"feed": Part(1)}, timeout_s=0.1)
    with pytest.raises(Stalled, match=r"step_000001 was not written within 0.1 s"), opened:
        opened.save(1)


@pytest.mark.parametrize("notices", ["save", "metrics", "wait"])
def test_a_dead_writer_is_noticed_by_save_metrics_and_wait(tmp_path, notices):
    learner = WritingLearner()
    learner.dies = True
    with pytest.raises(RuntimeError, match="learner-0 was killed while writing"), checkpoints(tmp_path, learner) as it:
        it.save(1)
        time.sleep(0.5)
        {"save": lambda: it.save(2), "metrics": it.metrics, "wait": it.wait}[notices]()
        pytest.fail("nobody noticed")


def test_an_error_waits_for_the_checkpoint_and_a_signal_does_not(tmp_path):
    for step, error in ((1, RuntimeError), (2, Stop)):
        learner = WritingLearner()
        learner.writes.clear()
        with pytest.raises(error), checkpoints(tmp_path, learner, step) as opened:
            opened.save(step)
            Timer(0.5, learner.writes.set).start()
            raise error
    assert steps(tmp_path) == [".step_000002.partial", "step_000001"]


def test_a_save_that_dies_is_replaced_by_the_next(tmp_path):
    older, learner = save(tmp_path, 1), WritingLearner()
    learner.dies = True
    with pytest.raises(RuntimeError, match="killed while writing"):
        save(tmp_path, 2, learner)
    assert newest_whole(tmp_path, pytest.fail) == older
    save(tmp_path, 2)
    assert steps(tmp_path) == ["step_000001", "step_000002"]


def test_a_step_that_is_saved_again_replaces_its_checkpoint(tmp_path):
    (save(tmp_path, 1) / "learner" / "rank_0.pt").write_text("broken")
    assert first_fault(save(tmp_path, 1)) is None


def test_a_broken_newer_checkpoint_never_displaces_a_whole_one(tmp_path):
    save(tmp_path, 10)
    truncate(save(tmp_path, 20) / "state.json")  # so the run is resumed at step 10
    just_written = save(tmp_path, 12, keep=1)
    assert newest_whole(tmp_path, pytest.fail) == just_written
    assert steps(tmp_path) == ["step_000012"]
