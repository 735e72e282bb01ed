"""Requests to a run, and their answers, as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlframe.record import requests
from rlframe.record.requests import Answer


def test_a_request_gets_its_answer(tmp_path: Path) -> None:
    folder = tmp_path / "requests"
    requests.open_folder(folder)
    file = requests.send(folder, {"rollout": "4"})
    assert requests.answer_to(file) is None
    [request] = requests.waiting(folder)
    assert request.wishes == {"rollout": "4"}
    request.answer(Answer(refused=False, text="4 engines"))
    assert requests.answer_to(file) == Answer(refused=False, text="4 engines")
    assert requests.waiting(folder) == []
    requests.withdraw(file)
    assert list(folder.iterdir()) == []


def test_a_new_process_of_a_run_forgets_old_requests(tmp_path: Path) -> None:
    requests.open_folder(tmp_path / "requests")
    requests.send(tmp_path / "requests", {"rollout": "4"})
    requests.open_folder(tmp_path / "requests")
    assert requests.waiting(tmp_path / "requests") == []


def test_nobody_can_ask_a_run_that_has_ended(tmp_path: Path) -> None:
    requests.open_folder(tmp_path / "requests")
    requests.close_folder(tmp_path / "requests")
    with pytest.raises(FileNotFoundError):
        requests.send(tmp_path / "requests", {"rollout": "4"})


def test_a_request_that_is_withdrawn_during_the_look_is_none(tmp_path: Path) -> None:
    requests.open_folder(tmp_path / "requests")
    kept = requests.send(tmp_path / "requests", {"rollout": "4"})
    (kept.parent / "gone.json").symlink_to(tmp_path / "nothing")  # a name that a listing has, and no file
    assert [request.file for request in requests.waiting(kept.parent)] == [kept]
