"""Ctrl-C and SIGTERM: a run ends at the next point at which the state is consistent."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop(BaseException):
    """A signal asked the run to end. Not an Exception, so that no handler of failures catches a Stop."""


class StopSignals:
    """Turns SIGINT and SIGTERM into `Stop`: at once, or at the end of a `held_back` block.

    A second signal always raises at once.
    """

    def __init__(self) -> None:
        self.received: str | None = None  # name of the latest signal
        self.cut_short = False  # a second signal has left half a state, which must not be saved
        self._immediate = True

    def listen(self) -> None:
        """Installs the handlers; called again after a library has installed other handlers."""
        signal.signal(signal.SIGINT, self._handle)
        signal.signal(signal.SIGTERM, self._handle)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Delays a first signal to the end of the block, since an interrupted block would leave half a state."""
        outer, self._immediate = self._immediate, False
        stopping = self.received is not None  # the caller is handling a Stop already
        try:
            yield
        except Stop:
            self.cut_short = True
            raise
        finally:
            self._immediate = outer
        if self.received and not stopping:
            raise Stop(self.received)

    def raise_held_back(self) -> None:
        """Raises Stop if a signal came in a `held_back` block that an error has ended."""
        if self.received:
            raise Stop(self.received)

    def _handle(self, number: int, _: FrameType | None) -> None:
        repeated, self.received = self.received is not None, signal.Signals(number).name
        if repeated or self._immediate:
            raise Stop(self.received)
