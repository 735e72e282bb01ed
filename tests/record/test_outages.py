"""The effective time of a run, over all its drivers."""

from __future__ import annotations

from rlframe.record.outages import Outages
from rlframe.record.status import read_status, write_status
from tests.tiny.status import make_status


def test_a_new_run_has_lost_nothing():
    assert Outages().effective_time == 1.0
    assert set(Outages().metrics().values()) == {0.0, 1.0}


def test_seconds_without_a_driver_are_lost():
    outages = Outages(seconds=900.0, lost_s=50.0).after_driver(100.0)
    assert (outages.losses["driver"], outages.seconds, outages.lost_s) == (1, 1000.0, 150.0)
    assert outages.effective_time == 0.85


def test_a_status_keeps_the_outages(tmp_path):
    written = make_status(outages=Outages(seconds=10.0, lost_s=1.0, late_answers=3))
    write_status(tmp_path / "status.json", written)
    assert read_status(tmp_path / "status.json").outages == written.outages
