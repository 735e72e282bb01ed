"""What goes into a sandbox and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

# returned: to its end; raised: an exception or a wrong end; timeout, output: over a limit; died: killed, by itself or
# by the kernel; skipped: not run, for the program had used up its time.
Status: TypeAlias = Literal["returned", "raised", "timeout", "output", "died", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one program. Beside them: no new process, no network, no file written, 64 open files, 64 threads."""

    case_s: float  # wall time of a case, and about as much CPU time
    program_s: float  # wall time of all cases
    memory_mib: int  # address space of the one process that there is at a time
    output_bytes: int  # of a case: what it prints, or its results as JSON


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
    """What one case said, as bytes: nothing here may be believed."""

    status: Status
    output: bytes  # stdout, or the result as JSON
    detail: str  # the end of stderr, or what limit was met
