"""The fork server: a small single-threaded process that knows nothing, forks for every case, and learns nothing.

Only the standard library: it is started as `python -I -S` with an empty environment.
"""

from __future__ import annotations

import _signal  # pyright: ignore[reportMissingImports]  # signal's enums cost a cold start a sixth of its time
import _socket
import gc
import os
import select
import struct
import sys

from rlframe.reward.sandbox import kernel, runner, seccomp

READY = b"+"
# What programs and runners import most: once for all of them, while nothing is asked for yet.
COMMON = ("collections", "functools", "heapq", "json", "math", "re", "traceback", "typing")


def serve(folders: list[str]) -> None:
    """Gives up all files outside `folders` and all capabilities, and says READY on file descriptor 0. Then it forks a
    runner for every case until the other end of that closes: see `_tell` for what it says. What it
    is told is the number of a runner that it must kill."""
    sys.dont_write_bytecode = True
    control = _socket.socket(fileno=0)
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 1)
    os.chdir("/")
    os.umask(0o777)
    kernel.drop_capabilities()
    kernel.read_only(folders)
    program = seccomp.build()
    control.send(READY)
    for name in COMMON:
        __import__(name)
    exec(compile("print", "<warm>", "exec"), {})
    gc.collect()
    gc.freeze()  # a collection would write to every page, and each process that is forked would copy it
    gc.disable()
    server, status = os.getpid(), 0
    standing = _Runner(nothing, program, server)
    while True:
        _tell(control, status, standing)
        coming = _Runner(nothing, program, server)  # while a case runs, so that the next one waits for no fork
        if not _ended(control, standing.pid):
            return
        status = os.waitstatus_to_exitcode(os.waitpid(standing.pid, 0)[1])
        standing = coming


class _Runner:
    """A process that waits for a case, and the socket to ask it by."""

    def __init__(self, nothing: int, program: bytes, server: int) -> None:
        self.asks, asked = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self.pid = os.fork()
        if self.pid == 0:
            self.asks.close()
            runner.wait(asked, nothing, program, server)
        asked.close()


def _tell(control: _socket.socket, status: int, standing: _Runner) -> None:
    """How the last runner ended, the next one's number, and with them the socket to that one."""
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", standing.asks.fileno()))
    control.sendmsg([b"%d %d" % (status, standing.pid)], [rights])
    standing.asks.close()


def _ended(control: _socket.socket, pid: int) -> bool:
    """Waits for a runner's end, and kills it where its number is told; whether anybody still wants to know."""
    ended = os.pidfd_open(pid)
    poll = select.poll()
    for descriptor in (ended, control.fileno()):
        poll.register(descriptor, select.POLLIN)
    while ended not in (ready := dict(poll.poll())):
        if control.fileno() in ready:
            order = control.recv(16)
            if not order:
                return False  # runners die with their parent
            if int(order) == pid:  # else of one that had ended by then
                os.kill(pid, _signal.SIGKILL)
    os.close(ended)
    return True
