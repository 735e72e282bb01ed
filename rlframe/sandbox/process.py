"""`Process`: calls a pure function in a child process that can be killed.

Some calls (a factorial of 10^9 inside sympy) ignore signals and hold the interpreter lock: only SIGKILL bounds them.
The child is a new interpreter, not a child of `multiprocessing`: fork would copy Ray's threads and locks; spawn and
forkserver would import the parent's main module, in a Ray worker Ray's own. The child (see `process_child.py`) is a
*nursery*: it pays once for imports and a first call, and then forks *workers*, one at a time, which answer the calls.
A killed worker is replaced in milliseconds, although sympy's import takes seconds.

Arguments and results are JSON values, so that a child under the control of hostile input cannot make the parent
unpickle. A pool library is no substitute: pebble 5.2 unpickles whatever a worker sends, and kills a late worker but not
the processes that its call started.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from rlframe.sandbox.process_child import describe_exit

STARTUP_S = 120.0  # imports on a cold, busy disk; far above the 1 to 4 s that sympy takes
REPLACE_S = 30.0  # to kill a worker, which may have gigabytes to give back, and to fork another
CLOSE_S = 5.0  # for a nursery to end its worker and itself; then the nursery is killed

# The child finds modules where its parent does: Ray workers and pytest have paths that no environment variable names.
# Until then -P keeps the current folder off the path.
BOOTSTRAP = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from rlframe.sandbox.process_child import run_nursery
run_nursery(**json.loads(sys.argv[2]))
"""


class CallFailed(RuntimeError):
    """The function raised, or could not be imported; the message is the child's traceback."""


class ProcessDied(RuntimeError):
    """The child ended in a call (a crash in C, or the machine was out of memory), or never got ready."""


class Process:
    """Calls `function` ("module:function") in a child that starts lazily, is reused, and is replaced when killed.

    `warm_up`: arguments of a first call before the child is ready, which pays for lazy imports and caches. Imports and
    first call must leave no threads behind, because the child forks.
    `max_memory_bytes`: of address space; above this limit the child's allocations raise MemoryError.
    One call at a time: threads that share a Process take turns. A copy or pickle has a child of its own.

    >>> process = Process("math:factorial", warm_up=[1], max_memory_bytes=2**30)
    >>> process.call(5, timeout_s=1.0)
    120
    """

    def __init__(self, function: str, *, warm_up: list[Any], max_memory_bytes: int) -> None:
        self.function, self.warm_up, self.max_memory_bytes = function, warm_up, max_memory_bytes
        self._lock = threading.Lock()
        self._child: Child | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        settings = {"warm_up": self.warm_up, "max_memory_bytes": self.max_memory_bytes}
        return functools.partial(Process, **settings), (self.function,)

    def start(self) -> None:
        """Starts the child unless it runs, without waiting until the child is ready."""
        with self._lock:
            self._started_child()

    def call(self, *args: Any, timeout_s: float) -> Any:
        """Returns the function's result. `timeout_s` bounds the call but not the child's start. Raises TimeoutError and
        kills the call; CallFailed with the child's traceback; ProcessDied where the child ended by itself."""
        with self._lock:
            child = self._started_child()
            self._wait_until_ready(child)
            try:
                return child.call(args, timeout_s)
            except TimeoutError as error:
                self._request_worker(child)
                raise TimeoutError(f"call of {self.function} took more than {timeout_s:g} s") from error
            except (EOFError, OSError) as error:  # OSError: a broken pipe
                self._request_worker(child)
                self._wait_until_ready(child)
                raise ProcessDied(f"{self.function}: its process ended with {child.last_worker_exit}") from error

    def close(self) -> None:
        """Ends the child; a later call starts another."""
        with self._lock:
            if self._child is not None:
                self._discard(self._child)

    def _started_child(self) -> Child:
        # A nursery or worker that died while idle (killed for lack of memory) is replaced without an error.
        if self._child is not None and self._child.nursery.poll() is not None:
            self._discard(self._child)
        if self._child is None:
            self._child = Child(self.function, self.warm_up, self.max_memory_bytes)
        elif self._child.ready and self._child.worker_is_gone():
            self._request_worker(self._child)
        return self._child

    def _request_worker(self, child: Child) -> None:
        with suppress(OSError):  # a dead nursery is noticed by the next wait
            child.request_worker()

    def _wait_until_ready(self, child: Child) -> None:
        try:
            child.wait_until_ready()
        except CallFailed:
            self._discard(child)
            raise
        except TimeoutError as error:  # not a TimeoutError for the caller: the call has not begun
            self._discard(child)
            raise ProcessDied(f"{self.function}: {error}") from error
        except (EOFError, OSError) as error:
            raise ProcessDied(f"{self.function}: its process ended at its start with {self._discard(child)}") from error

    def _discard(self, child: Child) -> str:
        self._child = None
        return child.close()


class Child:
    """The parent's side of a nursery and its worker: the nursery's process, and a socket to each.

    Every worker has a socket pair of its own, so that no byte of a killed call reaches the next call.
    """

    def __init__(self, function: str, warm_up: list[Any], max_memory_bytes: int) -> None:
        self._control, nursery_end = socket.socketpair()
        settings = {
            "control_fd": nursery_end.fileno(),
            "parent": os.getpid(),
            "function": function,
            "warm_up": warm_up,
            "max_memory_bytes": max_memory_bytes,
        }
        with nursery_end:
            self.nursery = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOTSTRAP, json.dumps(sys.path), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                pass_fds=[nursery_end.fileno()],
                start_new_session=True,  # a signal to the parent's group, such as ^C, does not reach the nursery
            )
        self._replies = Connection(os.dup(self._control.fileno()))
        self._worker: Connection | None = None
        self._ready_timeout_s = STARTUP_S
        self.last_worker_exit = ""  # of the worker before the current one: "SIGKILL", "exit status 1"
        self.request_worker()

    def request_worker(self) -> None:
        """Asks the nursery to kill its worker, if any, and to fork another. Does not wait for the new worker."""
        self.ready = False
        if self._worker is not None:
            self._worker.close()
        parent_end, worker_end = socket.socketpair()
        self._worker = Connection(parent_end.detach())
        with worker_end:
            socket.send_fds(self._control, [b"+"], [worker_end.fileno()])

    def wait_until_ready(self) -> None:
        """Raises CallFailed where the first call raised, TimeoutError, or EOFError and OSError without a nursery."""
        if not self.ready:
            if not self._replies.poll(self._ready_timeout_s):
                raise TimeoutError(f"its process was not ready after {self._ready_timeout_s:g} s")
            self.last_worker_exit = parse_reply(self._replies.recv_bytes())
            self.ready, self._ready_timeout_s = True, REPLACE_S

    def worker_is_gone(self) -> bool:
        """For an idle worker only: as it sends nothing, a readable socket means its end."""
        assert self._worker is not None
        return self._worker.poll()

    def call(self, args: tuple[Any, ...], timeout_s: float) -> Any:
        """Raises TimeoutError, CallFailed, or EOFError and OSError where the worker is gone."""
        assert self._worker is not None
        self._worker.send_bytes(json.dumps(args).encode())
        if not self._worker.poll(timeout_s):
            raise TimeoutError
        return parse_reply(self._worker.recv_bytes())

    def close(self) -> str:
        """Ends the nursery, the worker and the worker's children. Returns how the nursery ended."""
        self._replies.close()
        self._control.close()  # the nursery's signal to end
        if self._worker is not None:
            self._worker.close()
        try:
            return describe_exit(self.nursery.wait(CLOSE_S))
        except subprocess.TimeoutExpired:
            self.nursery.kill()  # the kernel kills the worker too
            return describe_exit(self.nursery.wait())


def parse_reply(reply: bytes) -> Any:
    """Returns a call's result. Raises CallFailed where the call raised."""
    fields: dict[str, Any] = json.loads(reply)
    if fields["error"] is not None:
        raise CallFailed(fields["error"])
    return fields["result"]
