"""Stop signals, sent to the test's own process."""

import os
import signal

import pytest

from rlframe.train.signals import Stop


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number, name", [(signal.SIGINT, "SIGINT"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_raises_a_stop_that_names_the_signal(signals, number, name):
    with pytest.raises(Stop, match=name):
        send(number)


def test_except_exception_does_not_catch_a_stop(signals):
    with pytest.raises(Stop):
        try:
            send(signal.SIGTERM)
        except Exception:
            pytest.fail("a Stop was caught as an Exception")


def test_the_first_signal_waits_for_the_end_of_the_block(signals):
    events = []
    with pytest.raises(Stop, match="SIGTERM"), signals.held_back():
        send(signal.SIGTERM)
        events.append("whole")
    assert events == ["whole"]


def test_a_second_signal_interrupts_the_block(signals):
    events = []
    with pytest.raises(Stop, match="SIGINT"), signals.held_back():
        send(signal.SIGINT)
        events.append("after the first")
        send(signal.SIGINT)
        events.append("after the second")
    assert events == ["after the first"]


def test_after_the_block_a_signal_stops_at_once_again(signals):
    with signals.held_back():
        pass
    events = []
    with pytest.raises(Stop):
        send(signal.SIGTERM)
        events.append("after the signal")
    assert events == []


def test_a_stopped_run_saves_without_a_second_stop(signals):
    events = []
    with pytest.raises(Stop):
        send(signal.SIGTERM)
    with signals.held_back():
        events.append("checkpoint")
    events.append("message")
    assert events == ["checkpoint", "message"]


def test_a_waiting_signal_does_not_hide_an_error_of_the_block(signals):
    with pytest.raises(ValueError, match="the learner's own"), signals.held_back():
        send(signal.SIGTERM)
        raise ValueError("the learner's own")
    assert signals.received == "SIGTERM"


def test_listen_replaces_the_handlers_of_a_library(signals):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    send(signal.SIGTERM)
    signals.listen()
    with pytest.raises(Stop):
        send(signal.SIGTERM)
