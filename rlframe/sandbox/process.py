"""`Process`: calls a pure function in a child process that can be killed.

Some calls (a factorial of 10^9 inside sympy) ignore signals and hold the interpreter lock: only SIGKILL bounds them.
The child is a new interpreter, not a child of `multiprocessing`: fork would copy Ray's threads and locks; spawn and
forkserver would import the parent's main module, in a Ray worker Ray's own. The child (see `process_child.py`) is a
*nursery*: it pays once for imports and a first call, and then forks *workers*, one at a time, which answer the calls.
A killed worker is replaced in milliseconds, although sympy's import takes seconds.

The child has an empty environment, and a worker is under Landlock and seccomp: hostile input that takes control of a
worker reads no secret, reaches no network and starts nothing. Arguments and results are JSON values, so that such a
worker cannot make the parent unpickle. A pool library is no substitute: pebble 5.2 unpickles whatever a worker sends,
and kills a late worker but not the processes that its call started.
"""

from __future__ import annotations

import functools
import json
import math
import os
import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlframe.sandbox.levels import readable_paths
from rlframe.sandbox.process_child import MAX_MESSAGE_BYTES, Confinement, describe_exit
from rlframe.sandbox.timer import cpu_seconds

STARTUP_S = 120.0  # imports on a cold, busy disk; far above the 1 to 4 s that sympy takes
REPLACE_S = 30.0  # to kill a worker, which may have gigabytes to give back, and to fork another
CLOSE_S = 5.0  # for a nursery to end its worker and itself; then the nursery is killed
# Wall time of a call in multiples of its CPU time: other processes may have the core most of the time.
WALL_FACTOR = 5.0
MIN_WAIT_S = 0.01

PACKAGE = Path(__file__).resolve().parents[1]
BOOTSTRAP = """
import json, sys
sys.path += json.loads(sys.argv[1])
from rlframe.sandbox.process_child import run_nursery
run_nursery(**json.loads(sys.argv[2]))
"""


class CallFailed(RuntimeError):
    """The function raised, or could not be imported; the message is the child's traceback."""


class ProcessDied(RuntimeError):
    """The child ended in a call (a crash in C, or the machine was out of memory), replied nonsense, or never got
    ready."""


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
        """Returns the function's result. `timeout_s` bounds the call's CPU time, and `WALL_FACTOR` times as much its
        wall time, but not the child's start. Raises TimeoutError and kills the call; CallFailed with the child's
        traceback; ProcessDied where the child ended by itself; ValueError for arguments that are too long."""
        with self._lock:
            child = self._started_child()
            self._wait_until_ready(child)
            try:
                return child.call(args, timeout_s)
            except CallFailed:
                raise
            except TimeoutError as error:
                self._request_worker(child)
                raise TimeoutError(f"call of {self.function} took more than {timeout_s:g} s") from error
            except (EOFError, OSError) as error:  # OSError: a broken pipe
                self._request_worker(child)
                self._wait_until_ready(child)
                problem = f"its process ended with {child.last_worker_exit} {error}".rstrip()
                raise ProcessDied(f"{self.function}: {problem}") from error
            except BaseException:  # interrupted: the reply still comes, and is not the next call's
                self._request_worker(child)
                raise

    def confinement(self) -> Confinement | None:
        """The kernel's limits on the calls; None before the first call."""
        return self._child.confinement if self._child is not None else None

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
        self._control, nursery_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        packages = site_packages()
        settings = {
            "control_fd": nursery_end.fileno(),
            "parent": os.getpid(),
            "function": function,
            "warm_up": warm_up,
            "max_memory_bytes": max_memory_bytes,
            "readable": [*readable_paths(), *packages, str(PACKAGE)],
        }
        imports = [*packages, str(PACKAGE.parent)]
        options = ["-I", "-S", *(["-B"] if sys.dont_write_bytecode else [])]
        with nursery_end:
            self.nursery = subprocess.Popen(
                [sys.executable, *options, "-c", BOOTSTRAP, json.dumps(imports), json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                pass_fds=[nursery_end.fileno()],
                env=environment(),
                cwd="/",
                start_new_session=True,  # a signal to the parent's group, such as ^C, does not reach the nursery
            )
        self._worker: socket.socket | None = None
        self._awaited = 0  # workers that were requested and are not ready
        self._ready_timeout_s = STARTUP_S
        self._worker_pid = 0
        self.last_worker_exit = ""  # of the worker before the current one: "SIGKILL", "exit status 1"
        self.confinement: Confinement | None = None
        self.request_worker()

    @property
    def ready(self) -> bool:
        return self._awaited == 0

    def request_worker(self) -> None:
        """Asks the nursery to kill its worker, if any, and to fork another. Does not wait for the new worker."""
        if self._worker is not None:
            self._worker.close()
        self._worker, worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._awaited += 1
        with worker_end:
            socket.send_fds(self._control, [b"+"], [worker_end.fileno()])

    def wait_until_ready(self) -> None:
        """Raises CallFailed where the first call raised, TimeoutError, or EOFError and OSError without a nursery."""
        while self._awaited:
            if not readable(self._control, self._ready_timeout_s):
                raise TimeoutError(f"its process was not ready after {self._ready_timeout_s:g} s")
            state = parse_reply(received(self._control))
            self._awaited, self._ready_timeout_s = self._awaited - 1, REPLACE_S
            self._worker_pid, self.last_worker_exit = state["worker"], state["last_exit"]
            self.confinement = state["confinement"]

    def worker_is_gone(self) -> bool:
        """For an idle worker only: as it sends nothing, a readable socket means its end."""
        assert self._worker is not None
        return readable(self._worker, 0)

    def call(self, args: tuple[Any, ...], timeout_s: float) -> Any:
        """Raises TimeoutError, CallFailed, or EOFError and OSError where the worker is gone or replies nonsense."""
        assert self._worker is not None
        message = json.dumps(args).encode()
        if len(message) > MAX_MESSAGE_BYTES:
            raise ValueError(
                f"the arguments have {len(message)} bytes as JSON, at most {MAX_MESSAGE_BYTES} can be sent"
            )
        cpu_limit, wall_limit = self._cpu_seconds() + timeout_s, time.monotonic() + timeout_s * WALL_FACTOR
        self._worker.send(message)
        wait_s = timeout_s
        while not readable(self._worker, wait_s):
            remaining_s = min(cpu_limit - self._cpu_seconds(), wall_limit - time.monotonic())
            if remaining_s <= 0:
                raise TimeoutError
            wait_s = max(remaining_s, MIN_WAIT_S)
        return parse_reply(received(self._worker))

    def _cpu_seconds(self) -> float:
        """CPU time of the worker so far; wall time where the kernel has no such clock."""
        try:
            return cpu_seconds(self._worker_pid)
        except OSError:
            return time.monotonic()

    def close(self) -> str:
        """Ends the nursery and the worker. Returns how the nursery ended."""
        self._control.close()  # the nursery's signal to end
        if self._worker is not None:
            self._worker.close()
        try:
            return describe_exit(self.nursery.wait(CLOSE_S))
        except subprocess.TimeoutExpired:
            self.nursery.kill()  # the kernel kills the worker too
            return describe_exit(self.nursery.wait())


def environment() -> dict[str, str]:
    """The child's whole environment: nothing of the parent's, save for the place of a shared libpython."""
    libraries = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return libraries | {"OPENBLAS_NUM_THREADS": "1"}  # a library with threads of its own would not survive the fork


def site_packages() -> list[str]:
    """Folders of installed packages on this interpreter's path. No folder of a program, and no current folder."""
    return [path for path in sys.path if path.startswith("/") and Path(path).name in ("site-packages", "dist-packages")]


def readable(channel: socket.socket, timeout_s: float) -> bool:
    """True once a packet or the other side's end can be received; False after `timeout_s`."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    return bool(poll.poll(math.ceil(timeout_s * 1000)))


def received(channel: socket.socket) -> bytes:
    """The next packet, at most `MAX_MESSAGE_BYTES` of it. Raises EOFError."""
    if packet := channel.recv(MAX_MESSAGE_BYTES):
        return packet
    raise EOFError


def parse_reply(reply: bytes) -> Any:
    """Returns a call's result. Raises CallFailed where the call raised, OSError for anything but a reply."""
    try:
        fields: Any = json.loads(reply)
        error, result = fields["error"], fields["result"]
    except (ValueError, TypeError, KeyError, RecursionError) as problem:
        raise OSError(f"after a reply that is none: {reply[:80]!r}") from problem
    if error is not None:
        raise CallFailed(str(error))
    return result
