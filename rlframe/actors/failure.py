"""Describes a Ray error: the actor's name, the traceback and the last output."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ray._private.worker import global_worker
from ray.exceptions import RayError

from rlframe.errors import RunFailed

ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LAST_LINES = 40  # of a failed actor's output


class ActorFailed(RunFailed):
    """An actor raised or died. The message holds the actor's name, the traceback and the last output, in this order."""


def describe(error: RayError) -> str:
    """The actor's name, the error, and the last lines that the actor and child processes printed."""
    text = ANSI_COLOUR.sub("", str(error)).rstrip()
    name = re.search(r"repr=([\w-]+)|\bname: ([\w-]+)", text)
    pid = re.search(r"pid[=:] ?(\d+)", text)
    actor = (name[1] or name[2]) if name else "an actor"
    return f"{actor} failed with {type(error).__name__}:\n{text}" + (_last_output(int(pid[1])) if pid else "")


def _last_output(pid: int) -> str:
    """The last lines of the process's log, if the log is on this machine.

    vLLM runs the model in a child process, whose traceback is nowhere else.
    """
    node: Any = global_worker.node
    logs = Path(node.get_logs_dir_path())
    lines = [
        line for log in sorted(logs.glob(f"worker-*-{pid}.*")) for line in log.read_text(errors="replace").splitlines()
    ]
    return "\nits last output:\n" + "\n".join(f"  {line}" for line in lines[-LAST_LINES:]) if lines else ""
