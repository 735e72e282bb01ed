"""`rlframe scale`: refusals in words, and a run that answers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlframe.cli import scale
from rlframe.record import requests
from rlframe.record.requests import Answer


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").touch()
    return tmp_path


def test_wrong_arguments_show_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["RUN"], ["RUN", "rollout"], ["RUN", "rollout="], ["RUN", "rollout=1", "more"]):
        assert scale.main(arguments) == 2
        assert "usage: rlframe scale RUN_DIR rollout=N" in capsys.readouterr().err


def test_a_key_that_cannot_be_scaled_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert scale.main(["RUN", "learner=2"]) == 2
    assert "learner: there is no such key; usage" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scale.main([str(tmp_path), "rollout=2"]) == 2
    assert f"{tmp_path}: the folder holds no run; give the run_dir of a run" in capsys.readouterr().err


def test_a_run_that_has_ended_is_refused(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scale.main([str(run_dir), "rollout=2"]) == 2
    assert f"{run_dir}: the run has ended, " in capsys.readouterr().err


def test_a_run_that_is_dead_is_refused_after_a_while(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scale, "ANSWER_S", 0.2)
    mark = requests.open_folder(run_dir / "requests")
    assert scale.main([str(run_dir), "rollout=2"]) == 2
    assert "has not answered for 0.2 s" in capsys.readouterr().err
    assert requests.waiting(mark) == []


@pytest.mark.parametrize("refused, code", [(False, 0), (True, 2)])
def test_the_run_s_answer_is_printed(
    run_dir: Path, capsys: pytest.CaptureFixture[str], refused: bool, code: int
) -> None:
    folder = run_dir / "requests"
    mark = requests.open_folder(folder)
    with ThreadPoolExecutor(1) as threads:
        scaling = threads.submit(scale.main, [str(run_dir), "rollout=2"])
        while not (waiting := requests.waiting(mark)):
            assert not scaling.done()
        waiting[0].answer(Answer(refused=refused, text="as you like"))
        assert scaling.result(timeout=30) == code
    output = capsys.readouterr()
    assert "as you like" in (output.err if refused else output.out)
