"""`Background`: an event loop in a second thread, whose tasks run while the owner's thread works."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent import futures
from concurrent.futures import Future
from typing import Any, TypeVar

from rlframe.actors.tasks import Tasks
from rlframe.errors import Stalled

T = TypeVar("T")

PULSE_S = 1.0  # between two looks whether the event loop still runs anything


class Background:
    """Runs tasks and wakes waiters when a task makes progress.

    A task's exception is re-raised by the next `wait()`, even if nobody awaits the task.
    """

    def __init__(
        self, name: str, stall_timeout_s: float, loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    ) -> None:
        """`name`: of the thread. `stall_timeout_s`: seconds without progress after which a wait raises Stalled.

        `loop`: makes the event loop. Its clock is the clock of all time-outs, so a loop may keep a simulated time.
        """
        self.stall_timeout_s = stall_timeout_s
        self._loop = loop()
        self._progress = asyncio.Event()
        self._progress_at = self.now()
        self._error: BaseException | None = None
        self._tasks = Tasks(self._fail)
        self._closing = False
        self._stuck = ""  # reason, once the event loop has run nothing for too long
        self._lock = threading.Lock()  # a call begins before `close` cancels all calls, or not at all
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def now(self) -> float:
        """Seconds by the event loop's clock, for any thread."""
        return self._loop.time()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Waits for a coroutine, from any other thread than the loop's; an interrupted wait cancels the coroutine.

        Raises RuntimeError after `close`, when no loop runs the coroutine, and Stalled where the loop has run nothing
        for `stall_timeout_s`, since a call in it does not return: then no task can find that out.
        """
        return self.result(self.begin(coroutine))

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts a coroutine for `result`, and does not wait; raises as `run` does."""
        with self._lock:
            if self._stuck:
                coroutine.close()
                raise Stalled(self._stuck)
            if self._closing:
                coroutine.close()
                raise RuntimeError(f"{self._thread.name}: the run has ended its calls to actors")
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def result(self, future: Future[T]) -> T:
        """Waits for a coroutine that was begun, as `run` does."""
        try:
            self._wait_while_alive(future)
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Starts a task as `start` does, from any thread; does nothing after `close`."""

        async def start() -> None:
            self.start(coroutine)

        with self._lock:
            if self._closing:
                coroutine.close()
            else:
                asyncio.run_coroutine_threadsafe(start(), self._loop)

    # The methods from here to `close` are called on the event loop.

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Future[None]:
        """Starts a task, does not wait for the end, and restarts the clock of the stall timeout."""
        self._progress_at = self.now()
        task = self._tasks.start(coroutine)
        task.add_done_callback(lambda _: self.notify())
        return task

    def notify(self) -> None:
        """Wakes all waiters and restarts the clock of the stall timeout."""
        self._progress_at = self.now()
        self._progress.set()

    async def wait(self, describe: Callable[[], str]) -> None:
        """Returns at the next notification.

        Raises a task's exception, and Stalled with the text of `describe` after `stall_timeout_s` without progress.
        """
        if self._error is not None:
            raise self._error
        self._progress.clear()
        seconds = self._progress_at + self.stall_timeout_s - self.now()
        try:
            await asyncio.wait_for(self._progress.wait(), max(seconds, 0.001))
        except TimeoutError:
            raise Stalled(describe()) from None
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Cancels every task and ends the thread; called from the owner's thread."""

        async def cancel() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}  # started here, or by a task
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        with self._lock:
            self._closing = True
            if self._stuck:  # the thread is a daemon, and ends with the process
                return
            cancelled = asyncio.run_coroutine_threadsafe(cancel(), self._loop)
        cancelled.result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)

    def _wait_while_alive(self, future: Future[Any]) -> None:
        """Returns once a future is done. Raises Stalled where the loop runs nothing."""
        asked, answered = time.monotonic(), threading.Event()
        answered.set()  # short calls, which are nearly all, ask nothing
        while not futures.wait([future], PULSE_S).done:
            if answered.is_set():
                answered.clear()
                asked = time.monotonic()
                self._loop.call_soon_threadsafe(answered.set)
            elif (seconds := time.monotonic() - asked) > self.stall_timeout_s:
                self._stuck = (
                    f"{self._thread.name}: the event loop of the driver has run nothing for {seconds:.0f} s "
                    "(cluster.stall_timeout_s), since a call in it does not return; logs/driver_stacks.txt in the "
                    "run's folder names the call. With resume=auto the same command goes on with the run"
                )
                raise Stalled(self._stuck)

    def _fail(self, error: BaseException) -> None:
        self._error = error
