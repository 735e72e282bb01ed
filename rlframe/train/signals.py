"""Ctrl-C and SIGTERM: a run ends at the next place where its state is whole."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop(BaseException):
    """Somebody asked the run to end. No Exception, so that nothing takes it for a failure on the way."""


class StopSignals:
    """Turns SIGINT and SIGTERM into `Stop`, raised at once where the code says that it may be, else at `check`.

    The second signal always raises at once.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._at_once = True

    def listen(self) -> None:
        """Takes over both signals; called again after a library has put its own handlers there."""
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)

    def check(self) -> None:
        if self.received:
            raise Stop(self.received)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Inside, a first signal waits: what happens there leaves half a state when it is cut off."""
        before, self._at_once = self._at_once, False
        told = self.received is not None  # by a Stop that the caller is dealing with
        try:
            yield
        finally:
            self._at_once = before
        if not told:
            self.check()

    def _handle(self, number: int, _: FrameType | None) -> None:
        again, self.received = self.received is not None, signal.Signals(number).name
        if again or self._at_once:
            raise Stop(self.received)
