"""The fork server: a small single-threaded process that knows nothing, forks for every program, and learns nothing.

Only the standard library: it is started as `python -I -S` with an empty environment.
"""

from __future__ import annotations

import _socket
import array
import marshal
import os
import signal
import struct
import sys
from typing import Any

from rlframe.reward.sandbox import kernel, seccomp, supervisor

READY = b"+"


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
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    control.send(READY)
    import json  # noqa: F401  # what runners of functions need, once for all of them
    import traceback  # noqa: F401

    server = os.getpid()
    while True:
        message, extra, _, _ = control.recvmsg(1, _socket.CMSG_SPACE(4))
        if not message:
            return
        for _, _, data in extra:
            received = array.array("i", data)[0]
            if os.fork() == 0:
                control.close()
                _supervise(_socket.socket(fileno=received), program, nothing, server)
            os.close(received)


def _supervise(client: _socket.socket, program: bytes, nothing: int, server: int) -> None:
    try:
        kernel.die_with_parent(server)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
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
