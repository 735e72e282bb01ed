"""The fork server: a small single-threaded process that knows nothing, forks for every program, and learns nothing.

Only the standard library: it is started as `python -I -S` with an empty environment.
"""

from __future__ import annotations

import _signal  # pyright: ignore[reportMissingImports]  # signal's enums cost a cold start a sixth of its time
import _socket
import gc
import marshal
import os
import struct
import sys

from rlframe.reward.sandbox import kernel, seccomp, supervisor

TYPE_CHECKING = False  # typing's own would cost a cold start a third of its time
if TYPE_CHECKING:
    from typing import Any

READY, CLOSED = b"+", b"-"
# What programs and runners import most: once for all of them, while nothing is asked for yet.
COMMON = ("collections", "functools", "heapq", "json", "math", "re", "traceback", "typing")


def serve(folders: list[str]) -> None:
    """Gives up all files outside `folders` and all capabilities, says READY on file descriptor 0, then takes sockets
    from there until its other end closes. Each carries one program in and its outcomes out."""
    sys.dont_write_bytecode = True
    control = _socket.socket(fileno=0)
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 1)
    os.chdir("/")
    os.umask(0o777)
    kernel.drop_capabilities()
    kernel.read_only(folders)
    program = seccomp.build()
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)  # no zombies
    control.send(READY)
    for name in COMMON:
        __import__(name)
    exec(compile("print", "<warm>", "exec"), {})
    gc.collect()
    gc.freeze()  # a collection would write to every page, and each process that is forked would copy it
    gc.disable()
    server = os.getpid()
    while True:
        taken, take = os.pipe()
        if os.fork() == 0:
            os.close(taken)
            _supervise(control, take, program, nothing, server)
        os.close(take)
        # A process that waits for the next program is forked while the last one runs. One that dies waiting says b"".
        more = os.read(taken, 1)
        os.close(taken)
        if more == CLOSED:
            return


def _supervise(control: _socket.socket, take: int, program: bytes, nothing: int, server: int) -> None:
    """Waits for a program, tells the server that it has one, or that there will be none, and runs it."""
    try:
        kernel.die_with_parent(server)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        message, extra, _, _ = control.recvmsg(1, _socket.CMSG_SPACE(4))
        os.write(take, message or CLOSED)
        os.close(take)
        control.close()
        if not message:
            os._exit(0)
        [(_, _, data)] = extra
        client = _socket.socket(fileno=struct.unpack("i", data)[0])
        (size,) = struct.unpack("!Q", _read(client, 8))
        job: dict[str, Any] = marshal.loads(_read(client, size))
        for status, output, detail in supervisor.run(job, program, nothing):
            client.sendall(struct.pack("!B II", _code(status), len(output), len(detail)) + output + detail)
        os._exit(0)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)


def _code(status: str) -> int:
    return ("returned", "raised", "timeout", "output", "died", "skipped").index(status)


def _read(client: _socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = client.recv(min(1 << 20, size - len(data)))
        if not piece:
            raise EOFError("the worker is gone")
        data += piece
    return bytes(data)
