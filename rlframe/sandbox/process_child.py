"""The child's side of `Process`: a nursery that warms up once and forks a worker, and the worker that answers calls.

After the warm-up, which runs our own texts, the nursery gives up all files but those that Python reads, and its
capabilities. A worker inherits this and adds a seccomp filter: hostile input that takes over a worker can compute, read
the Python library and write replies.
"""

from __future__ import annotations

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
from types import FunctionType
from typing import Any, Literal, NoReturn, TypeAlias

from rlframe.sandbox import kernel, seccomp
from rlframe.sandbox.landlock import landlock_abi, read_only

# The kernel's limits on a worker. seccomp: reads any file of this user, but writes, connects and starts nothing.
Confinement: TypeAlias = Literal["none", "seccomp", "landlock"]
# A call or a reply is one packet, so that nobody waits for the rest of one. A socket's buffer has 208 KiB.
MAX_MESSAGE_BYTES = 1 << 17
FRAME_SLOTS = 1 << 17  # 1 MiB, for which CPython maps 2 MiB; pages that no frame uses take no memory
MAX_TRACEBACK_CHARS = 8_000  # at most 6 bytes each as JSON


def run_nursery(
    control_fd: int, parent: int, function: str, warm_up: list[Any], max_memory_bytes: int, readable: list[str]
) -> None:
    """The nursery's whole life: imports, warms up, then forks a worker for every socket that arrives. A single worker
    lives at a time, in a new process group. The nursery ends when the parent closes the control socket."""
    die_with_parent(parent)
    resource.setrlimit(resource.RLIMIT_AS, (max_memory_bytes, max_memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def plain_run(*args: Any) -> Any:
        module, _, name = function.partition(":")
        return getattr(importlib.import_module(module), name)(*args)

    run = in_wide_frame(plain_run)
    control, dev_null = socket.socket(fileno=control_fd), os.open(os.devnull, os.O_RDWR)
    warm_up_reply = build_reply(run, warm_up)
    gc.collect()
    gc.freeze()  # a worker's garbage collector then writes to no memory page that the workers share
    confinement, filter = confine(readable)
    nursery, worker, last_exit = os.getpid(), 0, ""
    while True:
        message, fds, _, _ = socket.recv_fds(control, 1, 1)
        if worker:
            last_exit = kill_worker(worker)
        if not message:
            return
        if json.loads(warm_up_reply)["error"] is not None:
            control.send(warm_up_reply)
            return
        worker = os.fork()
        if worker == 0:
            control.close()
            answer_calls(fds[0], dev_null, nursery, run, filter)
        # Nursery and worker both set the group: whichever runs first, the group exists in time.
        with suppress(OSError):
            os.setpgid(worker, worker)
        os.close(fds[0])
        state = {"worker": worker, "last_exit": last_exit, "confinement": confinement}
        control.send(json.dumps({"result": state, "error": None}).encode())


def in_wide_frame(function: FunctionType) -> FunctionType:
    """The same function, in a frame so large that its callees have their frames beside it, in one block of memory.

    CPython 3.11 and later map and unmap a block of 16 KiB whenever calls cross its end: 600 times for a comparison of
    two expressions by sympy, a fifth of its time. Delete when CPython keeps a block.
    """
    code = function.__code__.replace(co_stacksize=FRAME_SLOTS)
    return FunctionType(code, function.__globals__, closure=function.__closure__)


def confine(readable: list[str]) -> tuple[Confinement, kernel.Filter | None]:
    """Limits this process and its children to files beneath `readable`, as far as the kernel can. Returns the limits
    that a worker has, and the filter that it still has to install."""
    try:
        filter = kernel.Filter(seccomp.build(threads=False))
    except OSError:  # a system or a processor without a list of calls
        return "none", None
    kernel.drop_capabilities()
    kernel.forbid_dump()
    if landlock_abi() < 1:
        kernel.forbid_new_privileges()
        return "seccomp", filter
    ruleset = read_only(readable)
    kernel.restrict(ruleset)
    os.close(ruleset)
    return "landlock", filter


def answer_calls(
    calls: int, dev_null: int, nursery: int, run: Callable[..., Any], filter: kernel.Filter | None
) -> NoReturn:
    """A worker's whole life: answers calls until the parent closes the socket."""
    try:
        os.setpgid(0, 0)
        die_with_parent(nursery)
        for descriptor in range(3):
            os.dup2(dev_null, descriptor)
        os.close(dev_null)
        if filter is not None:
            filter.install()
        while message := os.read(calls, MAX_MESSAGE_BYTES):
            os.write(calls, build_reply(run, json.loads(message)))
    except OSError:
        os._exit(0)
    except BaseException:
        os._exit(1)
    os._exit(0)


def kill_worker(worker: int) -> str:
    """Kills a worker's process group. Returns how the worker ended, which may have been before the signal."""
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
        reply = json.dumps({"result": run(*args), "error": None}).encode()
        if len(reply) > MAX_MESSAGE_BYTES:
            raise ValueError(f"the result has {len(reply)} bytes as JSON, at most {MAX_MESSAGE_BYTES} can be returned")
        return reply
    except Exception:
        return json.dumps({"result": None, "error": traceback.format_exc()[-MAX_TRACEBACK_CHARS:]}).encode()


def die_with_parent(parent: int) -> None:
    """Asks the kernel for a SIGKILL when the parent ends: a child deep in a C loop never sees its socket close. The
    signal comes when the *thread* that started the child ends; a Process then starts another child."""
    if sys.platform == "linux":
        kernel.die_with_parent(parent)
    elif os.getppid() != parent:
        os._exit(1)
