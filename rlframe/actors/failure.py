"""Describes a Ray error: the actor's name, the traceback and the last output."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import ray
from ray._private.worker import global_worker
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rlframe.errors import RunFailed

ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LAST_LINES = 40  # of a failed actor's output
LOGS_S = 20.0  # for another node to read them


class ActorFailed(RunFailed):
    """An actor raised or died. The message holds the actor's name, the traceback and the last output, in this order."""


def describe(error: RayError) -> str:
    """The actor's name, the error, and the last lines that the actor and child processes printed.

    For RunFailed, whose text already has a remedy: the name and the text only.
    """
    text = ANSI_COLOUR.sub("", str(error)).rstrip()
    name = re.search(r"repr=([\w-]+)|\bname: ([\w-]+)", text)
    actor = (name[1] or name[2]) if name else "an actor"
    pid, ip = re.search(r"\bpid[=:] ?(\d+)", text), re.search(r"\bip[=:] ?([\w.:]*\w)", text)
    if remedy := re.search(r"^rlframe\.errors\.(?:RunFailed|BodyLost): (.*)", text, re.MULTILINE | re.DOTALL):
        return f"{actor}{f' on {ip[1]}' if ip else ''}: {remedy[1]}"
    output = _last_output(int(pid[1]), ip[1] if ip else None) if pid else []
    lines = "\nits last output:\n" + "\n".join(f"  {line}" for line in output) if output else ""
    return f"{actor} failed with {type(error).__name__}:\n{text}{lines}"


def _last_output(pid: int, ip: str | None) -> list[str]:
    """The last lines of a process's logs, which are on the actor's node. Empty where the node does not answer.

    vLLM runs the model in a child process, whose traceback is nowhere else.
    """
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeManagerAddress"] == ip]
    if ip is None or ray.get_runtime_context().get_node_id() in nodes:
        return _read_logs(pid)
    if not nodes:  # the whole node has died
        return []
    strategy = NodeAffinitySchedulingStrategy(nodes[0], soft=False)
    read: Any = ray.remote(_read_logs).options(num_cpus=0, scheduling_strategy=strategy)
    try:
        return ray.get(read.remote(pid), timeout=LOGS_S)
    except RayError:
        return []


def _read_logs(pid: int) -> list[str]:
    node: Any = global_worker.node
    logs = sorted(Path(node.get_logs_dir_path()).glob(f"worker-*-{pid}.*"))
    return [line for log in logs for line in log.read_text(errors="replace").splitlines()][-LAST_LINES:]
