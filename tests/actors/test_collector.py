"""The pause of Python's garbage collector."""

import gc

import pytest

from rlframe.actors.collector import collector_paused


def test_the_collector_pauses_inside_and_runs_after_an_error():
    with pytest.raises(ArithmeticError), collector_paused():
        assert not gc.isenabled()
        raise ArithmeticError
    assert gc.isenabled()


def test_a_pause_within_a_pause_does_not_end_it():
    with collector_paused():
        with collector_paused():
            pass
        assert not gc.isenabled()
