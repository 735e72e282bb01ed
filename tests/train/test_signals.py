"""Real signals to this very process."""

import os
import signal
from collections.abc import Iterator

import pytest

from rlframe.train.signals import Stop, StopSignals


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    listening = StopSignals()
    listening.listen()
    yield listening
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number, name", [(signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_stops_at_once_and_the_stop_has_its_name(signals, number, name):
    with pytest.raises(Stop, match=name):
        send(number)


def test_no_except_exception_on_the_way_takes_a_stop_for_a_failure(signals):
    with pytest.raises(Stop):
        try:
            send(signal.SIGTERM)
        except Exception:
            pytest.fail("a Stop was caught as an Exception")


def test_a_first_signal_waits_for_the_end_of_what_must_not_be_cut_off(signals):
    done = []
    with pytest.raises(Stop, match="SIGTERM"), signals.held_back():
        send(signal.SIGTERM)
        done.append("whole")
    assert done == ["whole"]


def test_a_second_signal_cuts_it_off(signals):
    done = []
    with pytest.raises(Stop, match="SIGINT"), signals.held_back():
        send(signal.SIGINT)
        done.append("after the first")
        send(signal.SIGINT)
        done.append("after the second")
    assert done == ["after the first"]


def test_after_it_a_signal_stops_at_once_again(signals):
    with signals.held_back():
        pass
    done = []
    with pytest.raises(Stop):
        send(signal.SIGTERM)
        done.append("after the signal")
    assert done == []


def test_what_a_stopped_run_does_to_save_itself_is_not_stopped_by_the_same_signal(signals):
    done = []
    with pytest.raises(Stop):
        send(signal.SIGTERM)
    with signals.held_back():
        done.append("checkpoint")
    done.append("told how to go on")
    assert done == ["checkpoint", "told how to go on"]


def test_an_error_inside_is_not_hidden_by_a_signal_that_waits(signals):
    with pytest.raises(ValueError, match="the learner's own"), signals.held_back():
        send(signal.SIGTERM)
        raise ValueError("the learner's own")
    with pytest.raises(Stop):
        signals.check()


def test_listening_again_takes_the_signals_back_from_a_library(signals):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    send(signal.SIGTERM)
    signals.listen()
    with pytest.raises(Stop):
        send(signal.SIGTERM)
