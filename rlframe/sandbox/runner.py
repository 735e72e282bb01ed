"""The untrusted side: a forked process that receives a case, gives up its rights, and executes the program's source.

Nothing in this module restrains the program, which may change any object of this interpreter. The kernel restrains it,
and the worker believes nothing that comes out.
"""

import _socket
import atexit
import builtins
import gc
import marshal
import posix
import sys

from rlframe.sandbox import kernel
from rlframe.sandbox.channel import Channel
from rlframe.sandbox.values import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FILENAME = "<solution>"
HELLO = b"+"  # a runner's first message; the kernel adds the runner's process number
RESULTS = 3  # file descriptor for the results of function calls
MAX_OPEN_FILES = 64


def prepare() -> None:
    """Runs once in the server: work that every runner would otherwise repeat on memory pages of its own."""
    stdin, stderr = posix.memfd_create("stdin"), posix.dup(2)
    pipe_reader, pipe_writer = posix.pipe()
    for index, descriptor in enumerate((stdin, pipe_writer, pipe_writer)):
        posix.dup2(descriptor, index)
    # The interpreter's own streams have used buffers. `open` looks once at the kind of file, so descriptors 0, 1 and 2
    # have the kinds of a script here: a file, and pipes.
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.argv = [FILENAME]
    posix.dup2(stderr, 2)
    for descriptor in (stdin, stderr, pipe_reader, pipe_writer):
        posix.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))
    for name in ("exit", "quit"):  # missing under `-S`
        setattr(builtins, name, sys.exit)
    exec(compile("print", FILENAME, "exec"), {})
    kernel.set_limit(kernel.RLIMIT_NOFILE, MAX_OPEN_FILES)
    for resource in (kernel.RLIMIT_FSIZE, kernel.RLIMIT_CORE, kernel.RLIMIT_MEMLOCK):
        kernel.set_limit(resource, 0)


def wait(cases: _socket.socket, dev_null: int, filter: kernel.Filter, server: int) -> None:
    """Waits for a case and runs it; does not return. A case is a message with limits and the descriptors of program,
    output and errors; then, for a script, stdin, or for a session, messages and replies. A runner that cannot give up
    its rights kills the server: no outcome."""
    try:
        kernel.die_with_parent(server)
        cases.send(HELLO)
        size, ancillary, _, _ = cases.recvmsg_into([kernel.bounds.memory], _socket.CMSG_SPACE(5 * 4))
        if size == 0:
            posix._exit(0)
        program, output, errors, *inputs = received_descriptors(ancillary)
        match inputs:
            case [messages, replies]:
                descriptors, run = [dev_null, output, errors, replies, messages, program], _run_session
            case [stdin]:
                descriptors, run = [stdin, output, errors, program], _run_script
            case _:
                descriptors, run = [dev_null, dev_null, errors, output, program], _run_calls
        _renumber(descriptors)
        kernel.bounds.limit_cpu()
        kernel.bounds.limit_address_space()
        kernel.forbid_dump()
        filter.install()
    except BaseException as error:
        try:
            posix.write(2, f"{type(error).__name__}: {error}\n".encode())
        finally:
            posix.kill(server, kernel.SIGKILL)
            posix._exit(1)
    gc.enable()
    _run_and_exit(lambda: run(*_read_program(len(descriptors) - 1)), _end_script if run is _run_script else None)


def received_descriptors(ancillary: "list[tuple[int, int, bytes]]") -> list[int]:
    """File descriptors from a message's ancillary data."""
    numbers = b"".join(content for _, _, content in ancillary)
    return [int.from_bytes(numbers[start : start + 4], "little") for start in range(0, len(numbers), 4)]


def _renumber(descriptors: list[int]) -> None:
    """Renumbers descriptors to 0, 1, 2, ... and closes the rest."""
    # First to high numbers, so that no descriptor is overwritten before it has moved.
    high = [posix.dup2(descriptor, MAX_OPEN_FILES // 2 + index) for index, descriptor in enumerate(descriptors)]
    for index, descriptor in enumerate(high):
        posix.dup2(descriptor, index)
    posix.closerange(len(high), 4096)


def _read_program(program: int) -> "tuple[str, Any, list[Any]]":
    """The source, the function's name and its inputs, from a descriptor."""
    content = posix.pread(program, posix.fstat(program).st_size, 0)
    posix.close(program)
    return marshal.loads(content)


def _run_script(source: str, *_: object) -> None:
    """Executes the source, with stdin, stdout and stderr on file descriptors 0, 1 and 2."""
    exec(compile(source, FILENAME, "exec"), {"__name__": "__main__"})


def _run_session(source: str, *_: object) -> None:
    """Executes the source, which takes messages and replies to them."""
    channel = Channel(messages=RESULTS + 1, replies=RESULTS)
    exec(
        compile(source, FILENAME, "exec"),
        {"__name__": "__main__", "receive": channel.receive, "reply": channel.reply},
    )


def _end_script() -> None:
    """Ends a script as an interpreter does: waits for threads, then calls the exit handlers."""
    if threading := sys.modules.get("threading"):
        threading._shutdown()
    atexit._run_exitfuncs()


def _run_calls(source: str, function: str, inputs: "list[dict[str, Any]]") -> None:
    """Calls the program's function on each input and writes a line for each result, as `values` encodes it."""
    namespace = {"__name__": "solution"}
    exec(compile(source, FILENAME, "exec"), namespace)
    call: Any = namespace
    for name in function.split("."):
        call = call[name] if isinstance(call, dict) else getattr(call() if isinstance(call, type) else call, name)
    for arguments in inputs:
        result = call(*arguments["args"], **arguments["kwargs"])
        posix.write(RESULTS, encode(result).encode() + b"\n")


def _run_and_exit(run: "Callable[[], None]", at_exit: "Callable[[], None] | None") -> None:
    exit_code = 1
    try:
        run()
        exit_code = 0
    except SystemExit as end:
        exit_code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException as error:
        import traceback

        traceback.print_exception(error, limit=-3)
    try:
        if at_exit:
            at_exit()
    finally:
        try:
            for stream in (sys.__stdout__, sys.stdout, sys.stderr):
                if stream and not stream.closed:
                    stream.flush()
        finally:
            posix._exit(exit_code & 0xFF)
