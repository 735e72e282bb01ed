"""Runs code that nobody trusts: inputs go in, what it says comes out, and it reaches nothing else.

    trusted worker          fork server (`python -I -S`)      runner of a case
    Sandbox.run(Program) ◀─ forks for every case, kills, ───▶ exec(source)
            │               bounds its threads                seccomp: computes,
            │               Landlock: reads the library,      speaks through pipes
            │               writes nothing                          │
            └── source, inputs, limits ──▶ outputs ─────────────────┘

What is expected of a program never enters: the worker compares. The server never sees a program either, so nothing of
one is left for the next: source, inputs and outputs go between the worker and the process that is forked for a case.

Landlock: https://docs.kernel.org/userspace-api/landlock.html
seccomp: https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from rlframe.sandbox.program import Limits, Outcome, Program
from rlframe.sandbox.sandbox import Isolation, Sandbox, SandboxFailed, SandboxUnavailable

__all__ = ["Isolation", "Limits", "Outcome", "Program", "Sandbox", "SandboxFailed", "SandboxUnavailable"]
