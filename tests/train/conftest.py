"""Parts that tests of runs share."""

import signal
from collections.abc import Iterator

import pytest

from rlframe.train.signals import StopSignals


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    """Listens to the signals of this process until the end of the test."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    stop_signals = StopSignals()
    stop_signals.listen()
    yield stop_signals
    for number, handler in handlers.items():
        signal.signal(number, handler)
