"""`Process`: one pure function in a child process that can be killed.

Some calls (a factorial of 10^9 inside sympy) ignore signals and exceptions and hold the interpreter lock: only a
SIGKILL from outside bounds them. The child is a plain new interpreter and not `multiprocessing`'s: a fork would
carry Ray's threads and locks, and spawn would import the parent's main module, which in a Ray worker is Ray's own.

That child, the *nursery*, pays once for imports and the first call, and then only forks *workers*, one at a time,
which answer the calls. So a killed worker is replaced in milliseconds and not in the seconds that sympy's import takes.

Arguments and results are JSON values, so that a child led astray by its input cannot make the parent unpickle.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn

STARTUP_S = 120.0  # imports on a cold, busy disk; far above the 1 to 4 s that sympy takes
REPLACE_S = 30.0  # to kill a worker, which may have gigabytes to give back, and to fork another
CLOSE_S = 5.0  # for a nursery to end its worker and itself; then it is killed

# The child finds modules where its parent does: Ray workers and pytest have paths that no environment variable names.
# -P keeps the current folder off the path before that.
BOOTSTRAP = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from rlframe.sandbox.process import nurse
nurse(**json.loads(sys.argv[2]))
"""


class CallFailed(RuntimeError):
    """The function raised, or could not be imported; the message is the child's traceback."""


class ProcessDied(RuntimeError):
    """The child ended in a call (a crash in C, or the machine was out of memory), or never got ready."""


class Process:
    """Calls `function` ("module:function") in a child that starts lazily, is reused, and is replaced when killed.

    `warm_up`: arguments of a first call before the child is ready; it pays for lazy imports and caches. Like the
    imports it must leave no threads behind: the child forks.
    `max_memory_bytes`: of address space; above it the child's allocations raise MemoryError.
    One call at a time: threads that share a Process wait for each other. A copy or pickle has its own child.

    >>> process = Process("math:factorial", warm_up=[1], max_memory_bytes=2**30)
    >>> process.call(5, timeout_s=1.0)
    120
    """

    def __init__(self, function: str, *, warm_up: list[Any], max_memory_bytes: int) -> None:
        self.function, self.warm_up, self.max_memory_bytes = function, warm_up, max_memory_bytes
        self._lock = threading.Lock()
        self._child: Child | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.function, self.warm_up, self.max_memory_bytes)

    def start(self) -> None:
        """Starts the child unless one runs, and does not wait for it."""
        with self._lock:
            self._running()

    def call(self, *args: Any, timeout_s: float) -> Any:
        """The function's result. `timeout_s` is for the call alone: the child's start has its own bound.

        Raises TimeoutError once the call is being killed, CallFailed with its traceback, ProcessDied if it ended by
        itself.
        """
        with self._lock:
            child = self._running()
            self._wait_until_ready(child)
            try:
                return child.call(args, timeout_s)
            except TimeoutError as error:
                self._request_worker(child)
                raise TimeoutError(f"call of {self.function} took more than {timeout_s:g} s") from error
            except (EOFError, OSError) as error:  # OSError: a broken pipe
                self._request_worker(child)
                self._wait_until_ready(child)
                raise ProcessDied(f"{self.function}: its process ended with {child.last_worker}") from error

    def close(self) -> None:
        """Ends the child; a later call starts another."""
        with self._lock:
            if self._child is not None:
                self._discard(self._child)

    def _running(self) -> Child:
        # One that died while idle (an out-of-memory kill) costs nothing but a new start, of the worker or of both.
        if self._child is not None and self._child.nursery.poll() is not None:
            self._discard(self._child)
        if self._child is None:
            self._child = Child(self.function, self.warm_up, self.max_memory_bytes)
        elif self._child.ready and self._child.worker_is_gone():
            self._request_worker(self._child)
        return self._child

    def _request_worker(self, child: Child) -> None:
        with suppress(OSError):  # the nursery is gone, which the wait for it notices
            child.request_worker()

    def _wait_until_ready(self, child: Child) -> None:
        try:
            child.wait_until_ready()
        except CallFailed:
            self._discard(child)
            raise
        except TimeoutError as error:  # not the caller's: nothing that it passed was looked at
            self._discard(child)
            raise ProcessDied(f"{self.function}: {error}") from error
        except (EOFError, OSError) as error:
            raise ProcessDied(f"{self.function}: its process ended at its start with {self._discard(child)}") from error

    def _discard(self, child: Child) -> str:
        self._child = None
        return child.close()


def _rebuild(function: str, warm_up: list[Any], max_memory_bytes: int) -> Process:
    return Process(function, warm_up=warm_up, max_memory_bytes=max_memory_bytes)


class Child:
    """The parent's end of one nursery and its worker: a process, and a socket to each.

    Every worker has a socket pair of its own, so that nothing of a killed one's call is left for the next.
    """

    def __init__(self, function: str, warm_up: list[Any], max_memory_bytes: int) -> None:
        self._control, theirs = socket.socketpair()
        settings = {
            "control_fd": theirs.fileno(),
            "parent": os.getpid(),
            "function": function,
            "warm_up": warm_up,
            "max_memory_bytes": max_memory_bytes,
        }
        with theirs:
            self.nursery = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOTSTRAP, json.dumps(sys.path), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # a signal to the parent's group, such as ^C, is not for it
            )
        self._replies = Connection(os.dup(self._control.fileno()))
        self._worker: Connection | None = None
        self._patience_s = STARTUP_S
        self.last_worker = ""  # how the worker before this one ended: "SIGKILL", "exit status 1"
        self.request_worker()

    def request_worker(self) -> None:
        """Asks the nursery to kill its worker, if it has one, and to fork another. Does not wait for it."""
        self.ready = False
        if self._worker is not None:
            self._worker.close()
        ours, theirs = socket.socketpair()
        self._worker = Connection(ours.detach())
        with theirs:
            socket.send_fds(self._control, [b"+"], [theirs.fileno()])

    def wait_until_ready(self) -> None:
        """Raises CallFailed where the first call raised, TimeoutError, or EOFError and OSError without a nursery."""
        if not self.ready:
            if not self._replies.poll(self._patience_s):
                raise TimeoutError(f"its process was not ready after {self._patience_s:g} s")
            self.last_worker = result_of(self._replies.recv_bytes())
            self.ready, self._patience_s = True, REPLACE_S

    def worker_is_gone(self) -> bool:
        """Of an idle one: it sends nothing unasked, so whatever can be read is its end."""
        assert self._worker is not None
        return self._worker.poll()

    def call(self, args: tuple[Any, ...], timeout_s: float) -> Any:
        """Raises TimeoutError, CallFailed, or EOFError and OSError where the worker is gone."""
        assert self._worker is not None
        self._worker.send_bytes(json.dumps(args).encode())
        if not self._worker.poll(timeout_s):
            raise TimeoutError
        return result_of(self._worker.recv_bytes())

    def close(self) -> str:
        """Ends nursery and worker, whose children die with it. Returns how the nursery ended."""
        self._replies.close()
        self._control.close()  # which is what the nursery ends at
        if self._worker is not None:
            self._worker.close()
        try:
            return ending(self.nursery.wait(CLOSE_S))
        except subprocess.TimeoutExpired:
            self.nursery.kill()  # the kernel takes the worker along
            return ending(self.nursery.wait())


def nurse(control_fd: int, parent: int, function: str, warm_up: list[Any], max_memory_bytes: int) -> None:
    """The nursery's whole life: import, warm up, then fork a worker for every socket that arrives.

    One worker at a time, each in a process group of its own, so that one signal kills its children too. It ends
    when the parent's end of the control socket closes.
    """
    die_with(parent)
    resource.setrlimit(resource.RLIMIT_AS, (max_memory_bytes, max_memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def run(*args: Any) -> Any:
        module, _, name = function.partition(":")
        return getattr(importlib.import_module(module), name)(*args)

    control, replies = socket.socket(fileno=control_fd), Connection(os.dup(control_fd))
    warmed = reply_of(run, warm_up)
    gc.collect()
    gc.freeze()  # what all workers share is not written to by their collectors
    nursery, worker, ended = os.getpid(), 0, ""
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1, 1)
        if worker:
            ended = end(worker)
        if not message:
            return
        if json.loads(warmed)["error"] is not None:
            replies.send_bytes(warmed)
            return
        worker = os.fork()
        if worker == 0:
            control.close()
            replies.close()
            answer(Connection(fds[0]), nursery, run)
        with suppress(OSError):  # the worker does it too; neither may be late
            os.setpgid(worker, worker)
        os.close(fds[0])
        replies.send_bytes(json.dumps({"result": ended, "error": None}).encode())


def answer(calls: Connection, nursery: int, run: Callable[..., Any]) -> NoReturn:
    """A worker's whole life: answers calls until the parent's end of its socket closes."""
    try:
        os.setpgid(0, 0)
        die_with(nursery)
        while True:
            calls.send_bytes(reply_of(run, json.loads(calls.recv_bytes())))
    except (EOFError, OSError):
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def end(worker: int) -> str:
    """Kills a worker and its children and returns how it ended, which may have been before."""
    # Before waitpid(): until it is reaped, nobody else can have its group's number.
    with suppress(ProcessLookupError):
        os.killpg(worker, signal.SIGKILL)
    return ending(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))


def ending(exit_code: int) -> str:
    return signal.Signals(-exit_code).name if exit_code < 0 else f"exit status {exit_code}"


def reply_of(run: Callable[..., Any], args: list[Any]) -> bytes:
    """What `run(*args)` returns or raises, as {"result": ..., "error": traceback or None}."""
    try:
        return json.dumps({"result": run(*args), "error": None}).encode()
    except Exception:
        return json.dumps({"result": None, "error": traceback.format_exc()}).encode()


def result_of(reply: bytes) -> Any:
    """Raises CallFailed where `run` raised."""
    reply_: dict[str, Any] = json.loads(reply)
    if reply_["error"] is not None:
        raise CallFailed(reply_["error"])
    return reply_["result"]


def die_with(parent: int) -> None:
    """Asks the kernel for a SIGKILL when the parent ends: a child deep in a C loop never sees its socket close.

    The kernel sends it when the *thread* that started the child ends; a Process then starts another child.
    """
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before the request
        os._exit(1)
