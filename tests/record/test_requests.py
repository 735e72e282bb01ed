"""Requests to a run, and their answers, as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlframe.record import requests
from rlframe.record.requests import Answer


def test_a_request_gets_its_answer(tmp_path: Path) -> None:
    folder = tmp_path / "requests"
    mark = requests.open_folder(folder)
    file = requests.send(folder, {"rollout": "4"})
    assert requests.answer_to(file) is None
    [request] = requests.waiting(mark)
    assert request.wishes == {"rollout": "4"}
    request.answer(Answer(refused=False, text="4 engines"))
    assert requests.answer_to(file) == Answer(refused=False, text="4 engines")
    assert requests.waiting(mark) == []
    requests.withdraw(file)
    assert list(folder.iterdir()) == [mark]


def test_a_new_process_of_a_run_forgets_old_requests(tmp_path: Path) -> None:
    requests.open_folder(tmp_path / "requests")
    requests.send(tmp_path / "requests", {"rollout": "4"})
    assert requests.waiting(requests.open_folder(tmp_path / "requests")) == []


def test_nobody_can_ask_a_run_that_has_ended(tmp_path: Path) -> None:
    requests.close_folder(requests.open_folder(tmp_path / "requests"))
    with pytest.raises(FileNotFoundError):
        requests.send(tmp_path / "requests", {"rollout": "4"})


def test_a_request_that_is_withdrawn_during_the_look_is_none(tmp_path: Path) -> None:
    mark = requests.open_folder(tmp_path / "requests")
    kept = requests.send(tmp_path / "requests", {"rollout": "4"})
    (kept.parent / "gone.json").symlink_to(tmp_path / "nothing")  # a name that a listing has, and no file
    assert [request.file for request in requests.waiting(mark)] == [kept]


def test_an_older_driver_takes_no_requests_from_a_newer_one(tmp_path: Path) -> None:
    older, newer = (requests.open_folder(tmp_path / "requests") for _ in range(2))
    requests.send(tmp_path / "requests", {"rollout": "4"})
    assert requests.waiting(older) == []
    requests.close_folder(older)
    assert len(requests.waiting(newer)) == 1
