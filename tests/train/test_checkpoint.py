"""Checkpoints that are whole are found, and whatever is not is named and passed over."""

import json
import time
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest

from rlframe.config.train import CheckpointConfig
from rlframe.errors import RunFailed, Stalled
from rlframe.train import checkpoint
from rlframe.train.checkpoint import Checkpoints, fault, newest_whole, seal
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


def test_a_sealed_checkpoint_has_no_fault_and_is_the_newest_without_a_word(tmp_path):
    whole(tmp_path, 10)
    newest = whole(tmp_path, 20)
    told: list[str] = []
    assert fault(newest) is None
    assert newest_whole(tmp_path, told.append) == newest
    assert told == []


@pytest.mark.parametrize("name, damage, problem", DAMAGE)
def test_a_damaged_file_is_named_and_the_older_checkpoint_is_taken(tmp_path, name, damage, problem):
    older, broken = whole(tmp_path, 9), whole(tmp_path, 10)
    damage(broken / name)
    told: list[str] = []
    assert newest_whole(tmp_path, told.append) == older
    assert len(told) == 1
    assert told[0].startswith(f"checkpoint {broken} is passed over: {problem}")


def test_a_checkpoint_that_was_never_renamed_into_place_is_not_looked_at(tmp_path):
    older = whole(tmp_path, 10)
    whole(tmp_path, 20).rename(tmp_path / ".step_000020.partial")
    assert newest_whole(tmp_path, pytest.fail) == older


def test_where_nothing_is_whole_everything_is_named_and_it_is_an_error(tmp_path):
    for step in (10, 20):
        (whole(tmp_path, step) / "state.json").unlink()
    told: list[str] = []
    with pytest.raises(RunFailed, match=f"no whole checkpoint in {tmp_path}"):
        newest_whole(tmp_path, told.append)
    assert ["step_000020" in told[0], "step_000010" in told[1]] == [True, True]
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

    def weights(self) -> str:
        return f"weights {self.version}"


class Ledger:
    def __init__(self, step: int) -> None:
        self.held = {"position": 8 * step, "out": [8 * step - 1]}

    def state(self) -> dict:
        return self.held

    def restore(self, state: dict) -> None:
        self.held = state


class Engines:
    def __init__(self) -> None:
        self.loaded: tuple[str, int] | None = None

    def update(self, weights: str, *, version: int) -> None:
        self.loaded = (weights, version)


def checkpoints(folder: Path, learner: WritingLearner, step: int = 0, keep: int = 2, export: bool = False):
    config = CheckpointConfig(every=1, keep=keep, export=export)
    return Checkpoints(config, folder, learner, Ledger(step), 0, timeout_s=20)


def save(folder: Path, step: int, learner: WritingLearner | None = None, **settings: Any) -> Path:
    learner = learner or WritingLearner()
    learner.version = step
    with checkpoints(folder, learner, step, **settings) as opened:
        opened.save(step)
    return folder / f"step_{step:06d}"


def steps(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_comes_back_to_learner_ledger_and_engines(tmp_path):
    save(tmp_path, 4)
    learner, ledger, engines = WritingLearner(), Ledger(0), Engines()
    assert checkpoint.restore(tmp_path, learner, ledger, engines, pytest.fail) == 4
    assert (learner.version, ledger.held, engines.loaded) == (4, {"position": 32, "out": [31]}, ("weights 4", 4))


def test_of_five_checkpoints_the_newest_two_are_kept(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step, keep=2)
    assert steps(tmp_path) == ["step_000004", "step_000005"]


def test_an_export_is_part_of_the_checkpoint_and_of_its_manifest(tmp_path):
    saved = save(tmp_path, 1, export=True)
    (saved / "huggingface" / "config.json").unlink()
    assert fault(saved) == "huggingface/config.json is missing"


def test_training_goes_on_while_a_checkpoint_is_written_and_it_holds_what_was_there_before(tmp_path):
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
    assert fault(tmp_path / "step_000001") is None


def test_a_second_checkpoint_waits_for_the_first_and_the_seconds_are_told_once(tmp_path):
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


def test_a_writer_that_never_ends_is_an_error_with_the_checkpoint_s_name(tmp_path):
    learner = WritingLearner()
    learner.writes.clear()
    opened = Checkpoints(
        CheckpointConfig(every=1, keep=1, export=False), tmp_path, learner, Ledger(1), 0, timeout_s=0.1
    )
    with pytest.raises(Stalled, match=r"step_000001 was not written within 0.1 s"), opened:
        opened.save(1)


@pytest.mark.parametrize("notices", ["save", "metrics", "wait"])
def test_a_writer_that_dies_is_raised_wherever_the_run_next_looks(tmp_path, notices):
    learner = WritingLearner()
    learner.dies = True
    with pytest.raises(RuntimeError, match="learner-0 was killed while writing"), checkpoints(tmp_path, learner) as it:
        it.save(1)
        time.sleep(0.5)
        {"save": lambda: it.save(2), "metrics": it.metrics, "wait": it.wait}[notices]()
        pytest.fail("nobody noticed")


def test_an_error_that_ends_the_run_lets_the_checkpoint_be_written_and_a_signal_does_not_wait(tmp_path):
    for step, error in ((1, RuntimeError), (2, Stop)):
        learner = WritingLearner()
        learner.writes.clear()
        with pytest.raises(error), checkpoints(tmp_path, learner, step) as opened:
            opened.save(step)
            Timer(0.5, learner.writes.set).start()
            raise error
    assert steps(tmp_path) == [".step_000002.partial", "step_000001"]


def test_a_save_that_dies_leaves_the_older_checkpoint_the_newest_and_is_swept_up_by_the_next(tmp_path):
    older, learner = save(tmp_path, 1), WritingLearner()
    learner.dies = True
    with pytest.raises(RuntimeError, match="killed while writing"):
        save(tmp_path, 2, learner)
    assert newest_whole(tmp_path, pytest.fail) == older
    save(tmp_path, 2)
    assert steps(tmp_path) == ["step_000001", "step_000002"]


def test_a_step_that_is_saved_again_replaces_its_checkpoint(tmp_path):
    (save(tmp_path, 1) / "learner" / "rank_0.pt").write_text("broken")
    assert fault(save(tmp_path, 1)) is None


def test_a_broken_newer_checkpoint_never_pushes_out_the_whole_one_that_a_resumed_run_has_just_written(tmp_path):
    save(tmp_path, 10)
    truncate(save(tmp_path, 20) / "state.json")  # so the run is resumed at step 10
    just_written = save(tmp_path, 12, keep=1)
    assert newest_whole(tmp_path, pytest.fail) == just_written
    assert steps(tmp_path) == ["step_000012"]
