"""The driver's log on disk: epochs, heads, and disks that take no more."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlframe.errors import RunFailed
from rlframe.record.generation import Generation
from rlframe.record.ledger_log import LedgerLog, epochs, read_epochs


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LedgerLog]:
    log = LedgerLog(tmp_path / "ledger", Generation.take(tmp_path / "generations"))
    yield log
    log.close()


def begin(log: LedgerLog, **head: object) -> None:
    log.make_epoch()
    log.open(head)


def test_epochs_come_back_with_head_and_events(log: LedgerLog) -> None:
    begin(log, checkpoint=0)
    log.append(["Taken", 0, ["o0#1"]])
    begin(log, checkpoint=3)
    log.append(["Skipped", 4, "overlong"])
    log.flush()
    found = [(epoch.number, epoch.head, epoch.events) for epoch in read_epochs(log.folder)]
    assert found == [
        (1, {"checkpoint": 0}, [["Taken", 0, ["o0#1"]]]),
        (2, {"checkpoint": 3}, [["Skipped", 4, "overlong"]]),
    ]


def test_an_event_reaches_the_disk_without_a_flush_within_a_second_or_so(log: LedgerLog) -> None:
    begin(log)
    log.append(["one"])
    while not (log.folder / "000001" / "driver.log").stat().st_size:
        pass  # the thread of the log writes
    assert read_epochs(log.folder)[0].events == [["one"]]


def test_a_new_driver_continues_the_numbers_and_leaves_old_files_alone(log: LedgerLog, tmp_path: Path) -> None:
    begin(log)
    log.make_epoch()  # and dies
    log.close()
    before = {file: file.read_bytes() for file in log.folder.rglob("*.log")}
    again = LedgerLog(log.folder, Generation.take(tmp_path / "generations"))
    begin(again, checkpoint=5)
    again.close()
    assert [(epoch.number, epoch.head) for epoch in read_epochs(log.folder)] == [(1, {}), (3, {"checkpoint": 5})]
    assert {file: file.read_bytes() for file in before} == before


def test_old_epochs_are_deleted_with_all_their_files(log: LedgerLog) -> None:
    for _ in range(4):
        begin(log)
        (log.folder / f"{log.epoch:06d}" / "episodes-0.log").write_bytes(b"tokens")
    log.delete_before(3)
    assert epochs(log.folder) == [3, 4]
    assert not (log.folder / "000002").exists()


def test_a_folder_without_a_log_has_no_epochs(tmp_path: Path) -> None:
    assert (epochs(tmp_path / "ledger"), read_epochs(tmp_path / "ledger")) == ([], [])


def test_a_full_disk_ends_the_run_and_names_the_file(log: LedgerLog) -> None:
    begin(log)
    log.flush()
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))  # bytes of any file
    try:
        log.append(["x" * 5000])
        with pytest.raises(RunFailed, match=r"the run's log .*/000001/driver\.log cannot be written: .*too large"):
            log.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    with pytest.raises(RunFailed, match=r"checkpoint\.every=0"):
        log.append(["more"])  # so the run hears of what the thread found
