"""Runs programs that a model wrote: a program receives inputs, prints outputs, and reaches nothing else.

    worker (trusted)                  fork server (`python -I -S`)         runner (untrusted), one process a case
    ┌────────────────────────┐ start  ┌─────────────────────────────┐ fork ┌──────────────────────────────────┐
    │ Sandbox.run(Program)   │ ─────▶ │ Landlock: reads Python's    │ ───▶ │ seccomp: computes, reads the     │
    │ compares each output   │ kill   │ library, writes no file     │ kill │ library, writes to its own pipes │
    │ with the expected one  │ ─────▶ │ bounds the runner's threads │ ───▶ │ exec(source)                     │
    └────────────────────────┘        └─────────────────────────────┘      └──────────────────────────────────┘
       │  ▲                                                                               ▲  │
       │  └───────────────────────────── output and stderr, through pipes ────────────────┼──┘
       └──────────────────────────────── source, inputs, limits ──────────────────────────┘

Expected outputs never enter the sandbox. The fork server never sees a program either: source, inputs and outputs travel
between the worker and the runner of the case, so no program can leave anything for the next program.

A `Session` is a program that goes on after an answer: each message gets a reply. `Cells` is a notebook on a session.

Landlock: https://docs.kernel.org/userspace-api/landlock.html
seccomp: https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from rlframe.sandbox.cells import CellResult, Cells
from rlframe.sandbox.program import Limits, Outcome, Program
from rlframe.sandbox.sandbox import Isolation, Sandbox, SandboxFailed, SandboxUnavailable
from rlframe.sandbox.session import Session, SessionEnded

__all__ = [
    "CellResult",
    "Cells",
    "Isolation",
    "Limits",
    "Outcome",
    "Program",
    "Sandbox",
    "SandboxFailed",
    "SandboxUnavailable",
    "Session",
    "SessionEnded",
]
