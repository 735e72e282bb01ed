"""The untrusted end: runs a program's source in a process that has given up everything else.

Nothing here keeps the program from anything (it may change any object of this interpreter); the kernel does, and
whoever reads what comes out believes none of it.
"""

from __future__ import annotations

import gc
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FILENAME = "<solution>"
RESULTS = 3  # the file descriptor that results are written to


def run_stdin(source: str) -> None:
    """The program as a script: reads file descriptor 0, writes 1, tells its errors on 2. Does not return."""
    _standard_streams()
    _finish(lambda: exec(compile(source, FILENAME, "exec"), {"__name__": "__main__"}))


def run_function(source: str, function: str, inputs: list[dict[str, Any]]) -> None:
    """Calls the program's function on each input; one line of JSON a result. Does not return."""
    import json

    _standard_streams()

    def work() -> None:
        namespace: dict[str, Any] = {"__name__": "solution"}
        exec(compile(source, FILENAME, "exec"), namespace)
        call: Any = namespace
        for name in function.split("."):
            call = call[name] if isinstance(call, dict) else getattr(call() if isinstance(call, type) else call, name)
        for arguments in inputs:
            result = call(*arguments["args"], **arguments["kwargs"])
            os.write(RESULTS, json.dumps(result, allow_nan=False).encode() + b"\n")

    _finish(work)


def _standard_streams() -> None:
    # Not the interpreter's own: their buffers and locks were the server's.
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.argv = [FILENAME]
    gc.enable()


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
