"""Drivers that hold the same run directory: the newest goes on, and every older one is fenced."""

import json
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlframe.errors import Fenced
from rlframe.record.generation import Generation


def test_the_newest_driver_goes_on_and_older_ones_are_fenced(tmp_path: Path) -> None:
    first, second = Generation.take(tmp_path / "generations"), Generation.take(tmp_path / "generations")
    second.check()
    reason = rf"another driver has taken over {tmp_path}: pid {os.getpid()} on {socket.gethostname()}, since 20"
    for _ in range(2):
        with pytest.raises(Fenced, match=reason):
            first.check()
    Generation.take(tmp_path / "generations")
    with pytest.raises(Fenced):
        second.check()


def test_a_driver_alone_is_never_fenced(tmp_path: Path) -> None:
    driver = Generation.take(tmp_path)
    (tmp_path / ".nfs0001").write_text("")  # a file of the file system's own
    driver.check()
    assert json.loads((tmp_path / "000001").read_text())["pid"] == os.getpid()


def test_of_many_drivers_at_once_each_gets_its_own_number(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as threads:
        drivers = list(threads.map(lambda _: Generation.take(tmp_path), range(48)))
    assert sorted(driver.number for driver in drivers) == list(range(1, 49))
    max(drivers, key=lambda driver: driver.number).check()


def test_a_newer_driver_that_died_at_its_first_write_still_fences(tmp_path: Path) -> None:
    older = Generation.take(tmp_path)
    (tmp_path / "000002").write_text("")
    with pytest.raises(Fenced, match="whose file says nothing yet"):
        older.check()
