"""The untrusted end: a process that takes one case, gives up everything, and runs the program's source.

Nothing here keeps the program from anything (it may change any object of this interpreter); the kernel does, and
whoever reads what comes out believes none of it.
"""

from __future__ import annotations

import _signal  # pyright: ignore[reportMissingImports]
import _socket
import gc
import marshal
import os
import resource
import struct
import sys

from rlframe.reward.sandbox import kernel

TYPE_CHECKING = False  # typing's own would cost a cold start a third of its time
if TYPE_CHECKING:
    from typing import Any

FILENAME = "<solution>"
RESULTS = 3  # the file descriptor that results are written to
OPEN_FILES = 64


def wait(asked: _socket.socket, nothing: int, seccomp: bytes, server: int) -> None:
    """Waits for a case and runs it: its limits, and the descriptors of its program, output, errors and, for a script,
    stdin. `nothing`: an open /dev/null. Does not return; where rights cannot be given up, the server ends too."""
    try:
        kernel.die_with_parent(server)
        message, extra, _, _ = asked.recvmsg(64, _socket.CMSG_SPACE(4 * 4))
        if not message:
            os._exit(0)
        [(_, _, data)] = extra
        program, out, err, *stdin = struct.unpack(f"{len(data) // 4}i", data)
        _place([*stdin, out, err, program] if stdin else [nothing, nothing, err, out, program])
        _bound(*marshal.loads(message))
        kernel.only_compute(seccomp)
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os.kill(server, _signal.SIGKILL)  # no verdict follows
        os._exit(1)
    program = RESULTS if stdin else RESULTS + 1
    source, function, inputs = marshal.loads(os.pread(program, os.fstat(program).st_size, 0))
    os.close(program)
    _standard_streams()
    _finish((lambda: _script(source)) if function is None else (lambda: _calls(source, function, inputs)))


def _place(descriptors: list[int]) -> None:
    """Makes them 0, 1, 2, ... and closes all others."""
    high = [os.dup2(descriptor, 100 + place, inheritable=True) for place, descriptor in enumerate(descriptors)]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, place, inheritable=True)
    os.closerange(len(high), 4096)


def _bound(cpu_s: int, memory_bytes: int) -> None:
    for what, most in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory_bytes),  # threads too: each has its stack there
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
    ):
        resource.setrlimit(what, (most, most))


def _standard_streams() -> None:
    # Not the interpreter's own: their buffers and locks were the server's.
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.argv = [FILENAME]
    gc.enable()


def _script(source: str) -> None:
    """Reads file descriptor 0, writes 1, tells its errors on 2."""
    exec(compile(source, FILENAME, "exec"), {"__name__": "__main__"})


def _calls(source: str, function: str, inputs: list[dict[str, Any]]) -> None:
    """Calls the program's function on each input; one line of JSON a result."""
    import json

    namespace: dict[str, Any] = {"__name__": "solution"}
    exec(compile(source, FILENAME, "exec"), namespace)
    call: Any = namespace
    for name in function.split("."):
        call = call[name] if isinstance(call, dict) else getattr(call() if isinstance(call, type) else call, name)
    for arguments in inputs:
        result = call(*arguments["args"], **arguments["kwargs"])
        os.write(RESULTS, json.dumps(result, allow_nan=False).encode() + b"\n")


def _finish(work: Any) -> None:
    status = 1
    try:
        work()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        import traceback

        traceback.print_exception(error, limit=-3)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status & 0xFF)
