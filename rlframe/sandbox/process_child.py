"""The child's side of `Process`: a nursery that warms up once and forks a worker, and the worker that answers calls."""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn


def run_nursery(control_fd: int, parent: int, function: str, warm_up: list[Any], max_memory_bytes: int) -> None:
    """The nursery's whole life: imports, warms up, then forks a worker for every socket that arrives. A single worker
    lives at a time, in a new process group, so that a signal to the group kills the worker's children too. The nursery
    ends when the parent closes the control socket."""
    die_with_parent(parent)
    resource.setrlimit(resource.RLIMIT_AS, (max_memory_bytes, max_memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def run(*args: Any) -> Any:
        module, _, name = function.partition(":")
        return getattr(importlib.import_module(module), name)(*args)

    control, replies = socket.socket(fileno=control_fd), Connection(os.dup(control_fd))
    warm_up_reply = build_reply(run, warm_up)
    gc.collect()
    gc.freeze()  # a worker's garbage collector then writes to no memory page that the workers share
    nursery, worker, last_exit = os.getpid(), 0, ""
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1, 1)
        if worker:
            last_exit = kill_worker(worker)
        if not message:
            return
        if json.loads(warm_up_reply)["error"] is not None:
            replies.send_bytes(warm_up_reply)
            return
        worker = os.fork()
        if worker == 0:
            control.close()
            replies.close()
            answer_calls(Connection(fds[0]), nursery, run)
        # Nursery and worker both set the group: whichever runs first, the group exists in time.
        with suppress(OSError):
            os.setpgid(worker, worker)
        os.close(fds[0])
        replies.send_bytes(json.dumps({"result": last_exit, "error": None}).encode())


def answer_calls(calls: Connection, nursery: int, run: Callable[..., Any]) -> NoReturn:
    """A worker's whole life: answers calls until the parent closes the socket."""
    try:
        os.setpgid(0, 0)
        die_with_parent(nursery)
        while True:
            calls.send_bytes(build_reply(run, json.loads(calls.recv_bytes())))
    except (EOFError, OSError):
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def kill_worker(worker: int) -> str:
    """Kills a worker and its children. Returns how the worker ended, which may have been before the signal."""
    # The signal comes before waitpid(): until the worker is reaped, no new process can get the group's number.
    with suppress(ProcessLookupError):
        os.killpg(worker, signal.SIGKILL)
    return describe_exit(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))


def describe_exit(exit_code: int) -> str:
    """Examples: -9 -> "SIGKILL", 1 -> "exit status 1"."""
    return signal.Signals(-exit_code).name if exit_code < 0 else f"exit status {exit_code}"


def build_reply(run: Callable[..., Any], args: list[Any]) -> bytes:
    """Runs a call. Returns the JSON reply, {"result": ..., "error": traceback or None}."""
    try:
        return json.dumps({"result": run(*args), "error": None}).encode()
    except Exception:
        return json.dumps({"result": None, "error": traceback.format_exc()}).encode()


def die_with_parent(parent: int) -> None:
    """Asks the kernel for a SIGKILL when the parent ends: a child deep in a C loop never sees its socket close. The
    signal comes when the *thread* that started the child ends; a Process then starts another child."""
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # the parent ended before the request
        os._exit(1)
