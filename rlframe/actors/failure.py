"""Describes a Ray error: the actor's name, the traceback and the last output."""

from __future__ import annotations

import re

from ray.exceptions import RayError

from rlframe.actors.logs import last_lines
from rlframe.errors import RunFailed

ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class ActorFailed(RunFailed):
    """An actor raised or died. The message holds the actor's name, the traceback and the last output, in this order."""


def describe(error: RayError) -> str:
    """The actor's name, the error, and the last lines that the actor and child processes printed.

    For RunFailed, whose text already has a remedy: the name and the text only.
    vLLM runs the model in a child process, whose traceback is nowhere else.
    """
    text = ANSI_COLOUR.sub("", str(error)).rstrip()
    name = re.search(r"repr=([\w-]+)|\bname: ([\w-]+)", text)
    actor = (name[1] or name[2]) if name else "an actor"
    pid, ip = re.search(r"\bpid[=:] ?(\d+)", text), re.search(r"\bip[=:] ?([\w.:]*\w)", text)
    if remedy := re.search(r"^rlframe\.errors\.(?:RunFailed|BodyLost): (.*)", text, re.MULTILINE | re.DOTALL):
        return f"{actor}{f' on {ip[1]}' if ip else ''}: {remedy[1]}"
    output = last_lines(actor, int(pid[1])) if pid else []
    lines = "\nits last output:\n" + "\n".join(f"  {line}" for line in output) if output else ""
    return f"{actor} failed with {type(error).__name__}:\n{text}{lines}"
