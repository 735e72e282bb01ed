"""The values that enter and leave a sandbox: `Program`, `Limits`, `Outcome`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

# returned: ran to its end; raised: an exception or a nonzero exit status; timeout, output: exceeded that limit;
# died: killed by a signal; skipped: not run, because the program had no time left.
Status: TypeAlias = Literal["returned", "raised", "timeout", "output", "died", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a program. Fixed bounds: no new process, no network, no written file, 64 open files, 64 threads."""

    case_s: float  # CPU time of a case; wall time: see `Timer`
    program_s: float  # CPU time of all cases; wall time: see `Timer`
    memory_mib: int  # address space of a case's process
    output_bytes: int  # printed text of a case, or the call's result as JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Python source and its inputs: texts for stdin, or arguments for a function.

    >>> Program(source="def add(a, b): return a + b", function="add", inputs=[{"args": [1, 2], "kwargs": {}}])
    """

    source: str
    function: str | None  # name, or Class.method of a class without arguments; None: the program reads stdin
    inputs: list[Any]  # str, or {"args": [...], "kwargs": {...}} of JSON values


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a case. `output` and `detail` come from untrusted code: compare them, never believe or run them."""

    status: Status
    output: bytes  # stdout, or the result as `values.encode` writes it
    detail: str  # the end of stderr, or the limit that was exceeded
