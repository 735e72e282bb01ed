"""The standard streams of a program: fresh ones, and their names in /dev and /proc.

A name such as /dev/stdin leads to /proc, which a program cannot see at every level of isolation. So `open` and
`os.open` give a copy of the descriptor instead. /dev/null can be opened for writing in the same way.
"""

import builtins
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NULL = 63  # descriptor of /dev/null: the highest, where a program's own files come last
NAMES = {"/dev/null": NULL}
for _index, _name in enumerate(("stdin", "stdout", "stderr")):
    NAMES |= dict.fromkeys((f"/dev/{_name}", f"/dev/fd/{_index}", f"/proc/self/fd/{_index}"), _index)


def prepare(dev_null: int) -> None:
    """Runs once in the server: makes streams that runners use, and functions that open them by name."""
    stdin, stderr = posix.memfd_create("stdin"), posix.dup(2)
    pipe_reader, pipe_writer = posix.pipe()
    for index, descriptor in enumerate((stdin, pipe_writer, pipe_writer)):
        posix.dup2(descriptor, index)
    # The interpreter's own streams have used buffers. `open` looks once at the kind of file, so descriptors 0, 1 and 2
    # have the kinds of a script here: a file, and pipes.
    sys.stdin = open(0, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    posix.dup2(stderr, 2)
    for descriptor in (stdin, stderr, pipe_reader, pipe_writer):
        posix.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):
        setattr(sys, f"__{name}__", getattr(sys, name))
    posix.dup2(dev_null, NULL)
    _open_by_name()


def flush() -> None:
    """Flushes what a program may have printed to, whatever it has put in place of the streams."""
    for stream in (sys.__stdout__, sys.stdout, sys.stderr):
        if stream and not getattr(stream, "closed", False):
            stream.flush()


def _open_by_name() -> None:
    """Replaces `open` and `os.open` by functions that know `NAMES`."""
    import io
    import os
    from functools import wraps

    plain_open, plain_os_open = io.open, os.open

    def is_name(path: "Any") -> bool:
        return isinstance(path, str | os.PathLike) and str(path) in NAMES

    @wraps(plain_open)
    def open_(file: "Any", *arguments: "Any", **options: "Any") -> "Any":
        if is_name(file) and len(arguments) < 7:
            options.setdefault("opener", lambda name, flags: posix.dup(NAMES[str(name)]))
        return plain_open(file, *arguments, **options)

    @wraps(plain_os_open)
    def os_open(path: "Any", *arguments: "Any", **options: "Any") -> int:
        return posix.dup(NAMES[str(path)]) if is_name(path) else plain_os_open(path, *arguments, **options)

    builtins.open = io.open = open_
    os.open = os_open
