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

from rlframe.sandbox import kernel, streams
from rlframe.sandbox.channel import Channel
from rlframe.sandbox.values import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

FILENAME = "/solution.py"  # there is no such file
# Executed by a runner that waits, while the case before its own runs: it copies memory pages that every program needs.
WARM_UP = "len"
OUR_FRAMES = 12  # below those of a program, of which Python allows 1,000
RESULTS = 3  # file descriptor for the results of function calls
MAX_OPEN_FILES = streams.NULL + 1
IMPORTED = "solution"  # name of the program's module in call mode, where it is no script
STACK_BYTES = 64 << 20  # as judges do, more than the usual 8 MiB: a recursion through C functions needs much


prepared: "list[ModuleType]" = []  # the module of the next program
sources: list[str] = []  # of the program, as long as nobody has asked for its lines


def prepare(dev_null: int) -> None:
    """Runs once in the server: work that every runner would otherwise repeat on memory pages of its own."""
    import os

    streams.prepare(dev_null)
    os.environ.clear()
    sys.argv = [FILENAME]
    sys.setrecursionlimit(sys.getrecursionlimit() + OUR_FRAMES)
    for name in ("exit", "quit"):  # missing under `-S`
        setattr(builtins, name, sys.exit)
    prepared.append(_new_module())
    exec(compile(WARM_UP, FILENAME, "exec"), {})
    encode(0)  # makes the encoder
    kernel.set_limit(kernel.RLIMIT_NOFILE, MAX_OPEN_FILES)
    for resource in (kernel.RLIMIT_FSIZE, kernel.RLIMIT_CORE, kernel.RLIMIT_MEMLOCK):
        kernel.set_limit(resource, 0)
    try:
        kernel.set_limit(kernel.RLIMIT_STACK, STACK_BYTES, kernel.UNLIMITED)
    except OSError:  # the worker's own limit is lower, and stays
        return


def wait(cases: _socket.socket, dev_null: int, filter: kernel.Filter, server: int) -> None:
    """Waits for a case and runs it; does not return. A case is a message with limits and the descriptors of program,
    output and errors; then, for a script, stdin, or for a session, messages and stdout. A runner that cannot give up
    its rights kills the server: no outcome."""
    try:
        kernel.die_with_parent(server)
        exec(compile(WARM_UP, FILENAME, "exec"), {})
        size, ancillary, _, _ = cases.recvmsg_into([kernel.bounds.memory], _socket.CMSG_SPACE(5 * 4))
        if size == 0:
            posix._exit(0)
        program, output, errors, *inputs = received_descriptors(ancillary)
        match inputs:
            case [messages, prints]:
                descriptors, run = [dev_null, prints, errors, output, messages, program], _run_session
            case [stdin]:
                descriptors, run = [stdin, output, errors, program], _run_script
            case _:
                descriptors, run = [dev_null, dev_null, errors, output, program], _run_calls
        _renumber(descriptors)
        kernel.bounds.limit_cpu()
        kernel.bounds.limit_address_space()
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
    """Renumbers descriptors to 0, 1, 2, ... and closes the rest but for `streams.NULL`, the highest."""
    # First to high numbers, so that no descriptor is overwritten before it has moved.
    high = [posix.dup2(descriptor, MAX_OPEN_FILES // 2 + index) for index, descriptor in enumerate(descriptors)]
    for index, descriptor in enumerate(high):
        posix.dup2(descriptor, index)
    posix.closerange(len(high), streams.NULL)


def _read_program(program: int) -> "tuple[str, Any, list[Any]]":
    """The source, the function's name and its inputs, from a descriptor."""
    content = posix.pread(program, posix.fstat(program).st_size, 0)
    posix.close(program)
    return marshal.loads(content)


def _new_module() -> "ModuleType":
    import linecache

    module = type(sys)("__main__")
    module.__dict__.update(__file__=FILENAME, __cached__=None, __annotations__={}, __builtins__=builtins)
    sys.modules["__main__"] = sys.modules[IMPORTED] = module
    sources.clear()
    linecache.cache[FILENAME] = (sources.pop,)  # pyright: ignore[reportArgumentType]: for tracebacks and `inspect`
    return module


def execute(source: str, name: str) -> "dict[str, Any]":
    """Executes the source as the code of a module with this `__name__`. Returns the module's namespace."""
    module = prepared.pop() if prepared else _new_module()
    sources.append(source)
    module.__name__ = name
    exec(compile(source.removeprefix("\ufeff"), FILENAME, "exec", dont_inherit=True), module.__dict__)
    return module.__dict__


def _run_script(source: str, *_: object) -> None:
    """Executes the source, with stdin, stdout and stderr on file descriptors 0, 1 and 2."""
    execute(source, "__main__")


def _end_script() -> None:
    """Ends a script as an interpreter does: waits for threads, calls the exit handlers, then drops all objects, so that
    open files are flushed and finalizers run."""
    if threading := sys.modules.get("threading"):
        threading._shutdown()
    atexit._run_exitfuncs()
    streams.flush()
    sys.modules["__main__"].__dict__.clear()


def _run_session(source: str, *_: object) -> None:
    """Executes the source, which takes messages and replies to them."""
    channel = Channel(messages=RESULTS + 1, replies=RESULTS)
    prepared[0].__dict__.update(receive=channel.receive, reply=channel.reply)
    execute(source, "__main__")


def _run_calls(source: str, function: str, inputs: "list[dict[str, Any]]") -> None:
    """Calls the program's function on each input and writes a line for each result, as `values` encodes it. A method
    is called on a new object each time, as on LeetCode."""
    name, *attributes = function.split(".")
    owner = execute(source, IMPORTED)[name]
    for arguments in inputs:
        call: Any = owner
        for attribute in attributes:
            call = getattr(call() if isinstance(call, type) else call, attribute)
        result = call(*arguments["args"], **arguments["kwargs"])
        posix.write(RESULTS, encode(result).encode() + b"\n")


def _run_and_exit(run: "Callable[[], None]", at_exit: "Callable[[], None] | None") -> None:
    exit_code = 1
    try:
        exit_code = _exit_code(run)
        if at_exit:
            at_exit()
    finally:
        try:
            streams.flush()
        finally:
            posix._exit(exit_code & 0xFF)


def _exit_code(run: "Callable[[], None]") -> int:
    try:
        run()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException as error:
        import traceback

        frames = error.__traceback__
        while frames and frames.tb_frame.f_code.co_filename == __file__:
            frames = frames.tb_next
        traceback.print_exception(type(error), error, frames, limit=-3)
        return 1
    return 0
