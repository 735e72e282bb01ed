"""`Process`: one pure function in a child process that can be killed.

Some calls (a factorial of 10^9 inside sympy) ignore signals and exceptions and hold the interpreter lock: only a
SIGKILL from outside bounds them. The child is a plain new interpreter and not `multiprocessing`'s: a fork would
carry Ray's threads and locks, and spawn would import the parent's main module, which in a Ray worker is Ray's own.

Arguments and results are JSON values, so that a child led astray by its input cannot make the parent unpickle.
"""

from __future__ import annotations

import ctypes
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
from typing import Any

STARTUP_S = 120.0  # imports on a cold, busy disk; far above the 1 to 4 s that sympy takes

# The child finds modules where its parent does: Ray workers and pytest have paths that no environment variable names.
# -P keeps the current folder off the path before that.
BOOTSTRAP = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from rlframe.reward.process import serve
serve(**json.loads(sys.argv[2]))
"""


class CallFailed(RuntimeError):
    """The function raised, or could not be imported; the message is the child's traceback."""


class ProcessDied(RuntimeError):
    """The child ended in a call (a crash in C, or the machine was out of memory), or never got ready."""


class Process:
    """Calls `function` ("module:function") in a child that starts lazily, is reused, and is replaced when killed.

    `warm_up`: arguments of a first call before the child is ready; it pays for lazy imports and caches.
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

        Raises TimeoutError once the child is killed, CallFailed with its traceback, ProcessDied if it ended by itself.
        """
        with self._lock:
            child = self._running()
            if not child.ready:
                self._wait_for_start(child)
            try:
                child.connection.send_bytes(json.dumps(args).encode())
                return child.receive(timeout_s)
            except TimeoutError as error:
                self._discard(child)
                raise TimeoutError(f"call of {self.function} took more than {timeout_s:g} s") from error
            except (EOFError, OSError) as error:  # OSError: a broken pipe
                raise ProcessDied(f"{self.function}: its process ended with {self._discard(child)}") from error

    def close(self) -> None:
        """Kills the child; a later call starts another."""
        with self._lock:
            if self._child is not None:
                self._discard(self._child)

    def _running(self) -> Child:
        # One that died while idle (an out-of-memory kill) costs nothing but a new start.
        if self._child is not None and self._child.popen.poll() is not None:
            self._discard(self._child)
        if self._child is None:
            self._child = Child(self.function, self.warm_up, self.max_memory_bytes)
        return self._child

    def _wait_for_start(self, child: Child) -> None:
        try:
            child.receive(STARTUP_S)
            child.ready = True
        except CallFailed:
            self._discard(child)
            raise
        except TimeoutError as error:  # not the caller's: nothing that it passed was looked at
            self._discard(child)
            raise ProcessDied(f"{self.function}: its process was not ready after {STARTUP_S:g} s") from error
        except (EOFError, OSError) as error:
            raise ProcessDied(f"{self.function}: its process ended at its start with {self._discard(child)}") from error

    def _discard(self, child: Child) -> str:
        self._child = None
        return child.kill()


def _rebuild(function: str, warm_up: list[Any], max_memory_bytes: int) -> Process:
    return Process(function, warm_up=warm_up, max_memory_bytes=max_memory_bytes)


class Child:
    """The parent's end of one child: its pid and a socket pair."""

    def __init__(self, function: str, warm_up: list[Any], max_memory_bytes: int) -> None:
        ours, theirs = socket.socketpair()
        settings = {
            "fd": theirs.fileno(),
            "parent": os.getpid(),
            "function": function,
            "warm_up": warm_up,
            "max_memory_bytes": max_memory_bytes,
        }
        with theirs:
            self.popen = subprocess.Popen(
                [sys.executable, "-P", "-c", BOOTSTRAP, json.dumps(sys.path), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # its own process group, so that one signal kills its children too
            )
        self.connection = Connection(ours.detach())
        self.ready = False

    def receive(self, timeout_s: float) -> Any:
        """The next reply's result. Raises TimeoutError, CallFailed, or EOFError and OSError when the child is gone."""
        if not self.connection.poll(timeout_s):
            raise TimeoutError
        reply = json.loads(self.connection.recv_bytes())
        if reply["error"] is not None:
            raise CallFailed(reply["error"])
        return reply["result"]

    def kill(self) -> str:
        """Kills the child and its children, and returns how the child ended: "SIGKILL", "exit status 1"."""
        # Before wait(): until it is reaped, nobody else can have its group's number.
        with suppress(ProcessLookupError):  # reaped already, and no child of its own left
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.connection.close()
        status = self.popen.wait()
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def serve(fd: int, parent: int, function: str, warm_up: list[Any], max_memory_bytes: int) -> None:
    """The child's whole life: import, warm up, then answer calls until the parent's end of the socket closes."""
    die_with(parent)
    resource.setrlimit(resource.RLIMIT_AS, (max_memory_bytes, max_memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    connection = Connection(fd)

    def run(*args: Any) -> Any:
        module, _, name = function.partition(":")
        return getattr(importlib.import_module(module), name)(*args)

    connection.send_bytes(reply_of(run, warm_up))
    while True:
        try:
            args = json.loads(connection.recv_bytes())
        except EOFError:
            return
        connection.send_bytes(reply_of(run, args))


def reply_of(run: Callable[..., Any], args: list[Any]) -> bytes:
    """What `run(*args)` returns or raises, as {"result": ..., "error": traceback or None}."""
    try:
        return json.dumps({"result": run(*args), "error": None}).encode()
    except Exception:
        return json.dumps({"result": None, "error": traceback.format_exc()}).encode()


def die_with(parent: int) -> None:
    """Asks the kernel for a SIGKILL when the parent ends: a child deep in a C loop never sees its socket close.

    The kernel sends it when the *thread* that started the child ends; a Process then starts another child.
    """
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before the request
        sys.exit(1)
