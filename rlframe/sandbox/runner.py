"""The untrusted end: a process that takes one case, gives up everything, and runs the program's source.

Nothing here keeps the program from anything (it may change any object of this interpreter); the kernel does, and
whoever reads what comes out believes none of it.
"""

import _socket
import atexit
import builtins
import gc
import marshal
import posix
import sys

from rlframe.sandbox import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FILENAME = "<solution>"
RESULTS = 3  # the file descriptor that results are written to
OPEN_FILES = 64
SIGKILL = 9


def make_ready() -> None:
    """In the server, once: what every runner would do to memory of its own."""
    stdin, stderr = posix.memfd_create("stdin"), posix.dup(2)
    written, writes = posix.pipe()
    for place, descriptor in enumerate((stdin, writes, writes)):
        posix.dup2(descriptor, place)
    # Not the interpreter's own, whose buffers have been used. Of the kinds that a script's are: they look but once.
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.argv = [FILENAME]
    posix.dup2(stderr, 2)
    for descriptor in (stdin, stderr, written, writes):
        posix.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))
    for name in ("exit", "quit"):  # which `-S` leaves out
        setattr(builtins, name, sys.exit)
    exec(compile("print", FILENAME, "exec"), {})
    kernel.limit(kernel.RLIMIT_NOFILE, OPEN_FILES)
    for what in (kernel.RLIMIT_FSIZE, kernel.RLIMIT_CORE, kernel.RLIMIT_MEMLOCK):
        kernel.limit(what, 0)


def wait(asked: _socket.socket, nothing: int, filter: kernel.Filter, server: int) -> None:
    """Waits for a case and runs it: its limits, and the descriptors of its program, output, errors and, for a script,
    stdin. `nothing`: an open /dev/null. Does not return; where rights cannot be given up, the server ends too."""
    try:
        kernel.die_with_parent(server)
        size, extra, _, _ = asked.recvmsg_into([kernel.bounds.memory], _socket.CMSG_SPACE(4 * 4))
        if size == 0:
            posix._exit(0)
        program, out, err, *stdin = descriptors(extra)
        _place([*stdin, out, err, program] if stdin else [nothing, nothing, err, out, program])
        kernel.bounds.cpu()
        kernel.bounds.space()
        kernel.no_dump()
        filter.install()
    except BaseException as error:
        try:
            posix.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            posix.kill(server, SIGKILL)  # no verdict follows
            posix._exit(1)
    gc.enable()
    _finish(lambda: _run(RESULTS if stdin else RESULTS + 1), _end_script if stdin else None)


def descriptors(extra: "list[tuple[int, int, bytes]]") -> list[int]:
    """Those that came with a message."""
    data = b"".join(part for _, _, part in extra)
    return [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]


def _place(given: list[int]) -> None:
    """Makes them 0, 1, 2, ... and closes all others."""
    high = [posix.dup2(descriptor, OPEN_FILES // 2 + place) for place, descriptor in enumerate(given)]
    for place, descriptor in enumerate(high):
        posix.dup2(descriptor, place)
    posix.closerange(len(high), 4096)


def _run(program: int) -> None:
    source, function, inputs = marshal.loads(posix.pread(program, posix.fstat(program).st_size, 0))
    posix.close(program)
    if function is None:
        _script(source)
    else:
        _calls(source, function, inputs)


def _script(source: str) -> None:
    """Reads file descriptor 0, writes 1, tells its errors on 2."""
    exec(compile(source, FILENAME, "exec"), {"__name__": "__main__"})


def _end_script() -> None:
    """What the interpreter does at its end, and programs rely on: waits for threads, then says what is left."""
    if threading := sys.modules.get("threading"):
        threading._shutdown()
    atexit._run_exitfuncs()


def _calls(source: str, function: str, inputs: "list[dict[str, Any]]") -> None:
    """Calls the program's function on each input; one line of JSON a result."""
    import json

    namespace = {"__name__": "solution"}
    exec(compile(source, FILENAME, "exec"), namespace)
    call: Any = namespace
    for name in function.split("."):
        call = call[name] if isinstance(call, dict) else getattr(call() if isinstance(call, type) else call, name)
    for arguments in inputs:
        result = call(*arguments["args"], **arguments["kwargs"])
        posix.write(RESULTS, json.dumps(result, allow_nan=False).encode() + b"\n")


def _finish(work: "Callable[[], None]", last: "Callable[[], None] | None") -> None:
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
        if last:
            last()
    finally:
        try:
            for stream in (sys.__stdout__, sys.stdout, sys.stderr):
                if stream and not stream.closed:
                    stream.flush()
        finally:
            posix._exit(status & 0xFF)
