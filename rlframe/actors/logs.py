"""A file for each actor's output: what its process and its child processes print, from any node."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "RLFRAME_LOGS"  # of the environment of the driver and of actors: the folder
LAST_LINES = 40  # of an actor's output, as an error shows it
TAIL_BYTES = 1 << 20  # of a file, in which the last lines are searched


@contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Actors that start inside the `with` block have files in the folder, and errors quote these files."""
    os.environ[VARIABLE] = str(folder)
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def environment() -> dict[str, str]:
    """The variable for an actor's environment; empty where no folder was named."""
    return {VARIABLE: os.environ[VARIABLE]} if VARIABLE in os.environ else {}


def redirect(actor: str) -> None:
    """Appends the output of this process and of its later child processes to the actor's file.

    On a machine that cannot write the file, and without a folder, Ray keeps the output.
    """
    if (path := _file(actor)) is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError as error:
        print(f"{path} cannot be written ({error}), so the output stays here", file=sys.stderr, flush=True)
        return
    print(f"the output goes to {path} from here on", flush=True)
    os.write(file, f"=== pid {os.getpid()} on {socket.gethostname()}, {time.strftime('%F %T')}\n".encode())
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def last_lines(actor: str, pid: int) -> list[str]:
    """The last lines of an actor's process, whose file may also hold predecessors and successors."""
    if (path := _file(actor)) is None:
        return []
    try:
        with path.open("rb") as output:
            output.seek(-min(TAIL_BYTES, output.seek(0, os.SEEK_END)), os.SEEK_END)
            text = output.read().decode(errors="replace")
    except OSError:
        return []
    # The text before the first header, then pid and text of each process.
    first, *rest = re.split(r"^=== pid (\d+) on .*\n", text, flags=re.MULTILINE)
    texts = dict(zip(rest[::2], rest[1::2], strict=True))
    return texts.get(str(pid), first).splitlines()[-LAST_LINES:]


def _file(actor: str) -> Path | None:
    return Path(os.environ[VARIABLE]) / f"{actor}.log" if VARIABLE in os.environ else None
