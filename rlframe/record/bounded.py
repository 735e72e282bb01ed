"""Disk work with a bound: a call to a dead disk or a dead file server never returns, and no signal interrupts it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from rlframe.errors import Stalled

T = TypeVar("T")


def in_thread(name: str, work: Callable[[], T]) -> Future[T]:
    """Starts `work` in a daemon thread, for whose end the process does not wait, unlike an executor's threads."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def within(timeout_s: float, doing: str, work: Callable[[], T]) -> T:
    """The result of `work`. Raises Stalled with `doing` after `timeout_s`; the thread of `work` is abandoned then."""
    future = in_thread(doing, work)
    try:
        return future.result(timeout_s)
    except TimeoutError:
        if future.done():  # the work's own error
            raise
        raise Stalled(f"could not {doing} within {timeout_s:g} s: does the disk or the file server answer?") from None
