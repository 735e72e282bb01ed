"""A small log, cut at every byte: the run goes on, and no prompt is lost or taken twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from rlframe.errors import Fenced
from rlframe.experience.journal import Journal, NoLog
from rlframe.experience.ledger import Ledger
from rlframe.record.frames import read_frames
from rlframe.record.generation import Generation
from rlframe.record.ledger_log import LedgerLog, read_epochs
from tests.tiny.feed import hold, make_stream
from tests.tiny.groups import make_record
from tests.tiny.ledgers import check_balance
from tests.tiny.logged import LoggedRun, taken

STREAM = make_stream()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two steps ahead of the learner, in one epoch: o0 is open, other groups are ready."""
    driver = LoggedRun(tmp_path_factory.mktemp("run"), max_staleness=2).begin()
    hold(driver.engine, "o0")
    taken(driver, 2)
    folder = driver.folder
    driver.close()
    return folder


def restored(folder: Path) -> Ledger | None:
    """The ledger of a log; None where only the checkpoint can be used."""
    ledger = Ledger(prompts_per_step=2, max_staleness=2, dynamic_sampling=False)
    log = LedgerLog(folder, Generation.take(folder.parent / "generations"))
    journal = Journal(ledger, log, None)  # pyright: ignore
    try:
        return ledger if journal.restore(0, STREAM.at) else None
    except NoLog:
        assert ledger.admitted == 0
        return None


def go_on(ledger: Ledger) -> list[str]:
    """Scores everything and takes until six prompts are trained on -> prompt ids of all batches."""
    ledger.emit = lambda event: None
    version = ledger.next_version or 0
    for entry in ledger.in_flight:
        if entry.scored is not None:
            ledger.put_back(entry.key, make_record([1.0, 0.0], [1, 1], name=entry.admitted.prompt_id))
    while ledger.taken < 8:
        ledger.admit(STREAM.at, version, limit=9)
        for entry in ledger.in_flight:
            if entry.scored is None:
                ledger.record_score(entry.key, make_record([1.0, 0.0], [1, 1], name=entry.admitted.prompt_id))
        version += ledger.take(2, version) is not None
    return [entry.admitted.prompt_id for batch in ledger.batches.values() for entry in batch]


def cuts(folder: Path, copy: Path, file: str) -> list[Ledger | None]:
    """The ledger after each cut of a file, shortest first."""
    shutil.copytree(folder, copy)
    content = (folder / "000001" / file).read_bytes()
    ledgers = []
    for length in range(len(content) + 1):
        (copy / "000001" / file).write_bytes(content[:length])
        ledgers.append(restored(copy))
    return ledgers


def test_a_drivers_log_cut_at_any_byte_loses_and_repeats_no_prompt(log: Path, tmp_path: Path) -> None:
    ledgers = cuts(log, tmp_path / "cut", "driver.log")
    head_bytes = list(read_frames(log / "000001" / "driver.log"))[1][0]
    assert [ledger is None for ledger in ledgers] == [length < head_bytes for length in range(len(ledgers))]
    takes = []
    for ledger in filter(None, ledgers):
        check_balance(ledger)
        takes.append(len(ledger.batches))
        trained = go_on(ledger)
        assert len(set(trained)) == len(trained) == 8
        in_flight = {entry.admitted.prompt_id for entry in ledger.in_flight}
        assert {*trained, *in_flight} == {f"o{n}@0" for n in range(len(trained) + len(in_flight))}
    assert takes == sorted(takes) and takes[-1] == 2  # a longer log knows more


def test_a_segment_cut_at_any_byte_falls_back_or_reopens(log: Path, tmp_path: Path) -> None:
    ledgers = cuts(log, tmp_path / "cut", "episodes-0.log")
    whole = [ledger is not None for ledger in ledgers]
    assert whole == sorted(whole)  # a body of a batch is missing, up to some length
    assert whole[0] is False and whole[-1] is True


def test_a_changed_byte_is_found_wherever_it_is(log: Path, tmp_path: Path) -> None:
    copy = tmp_path / "changed"
    shutil.copytree(log, copy)
    file = copy / "000001" / "driver.log"
    content = file.read_bytes()
    expected = restored(log)
    assert expected is not None
    for place in range(0, len(content), 7):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        ledger = restored(copy)
        assert ledger is None or ledger.admitted <= expected.admitted
        if ledger is not None:  # the last frame alone was changed, and counts as torn
            check_balance(ledger)
            assert ledger.snapshot(0) != expected.snapshot(0)


def test_an_older_driver_writes_no_event_more(tmp_path: Path) -> None:
    first = LedgerLog(tmp_path / "ledger", Generation.take(tmp_path / "generations"))
    first.make_epoch()
    first.open({})
    first.append(["one"])
    first.flush()
    LedgerLog(tmp_path / "ledger", Generation.take(tmp_path / "generations"))
    first.append(["two"])
    for forbidden in (first.flush, first.make_epoch, lambda: first.delete_before(9), lambda: first.append(["three"])):
        with pytest.raises(Fenced, match="another driver has taken over"):
            forbidden()
    first.close()
    [epoch] = read_epochs(tmp_path / "ledger")
    assert epoch.events == [["one"]]


def test_prompts_that_have_changed_leave_the_log_out(log: Path) -> None:
    ledger = Ledger(prompts_per_step=2, max_staleness=2, dynamic_sampling=False)
    journal = Journal(ledger, LedgerLog(log, Generation.take(log.parent / "generations")), None)  # pyright: ignore
    other = {position: replace(STREAM.at(position), id=f"q{position}@0") for position in range(9)}
    with pytest.raises(NoLog, match=r"prompt o0@0 is in flight, and the stream has q0@0 .*prompts.train has changed"):
        journal.restore(0, other.__getitem__)
