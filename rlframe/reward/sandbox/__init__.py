"""Runs code that nobody trusts: inputs go in, what it says comes out, and it reaches nothing else.

    trusted worker          fork server (`python -I -S`)   supervisor of a program   runner of a case
    Sandbox.run(Program) ─▶ forks for every program ─────▶ forks, bounds, kills ───▶ exec(source)
                            Landlock: reads the library,                             seccomp: computes,
                            writes nothing                                           speaks through pipes

What is expected of a program never enters: the worker compares. The server never sees a program either, so nothing of
one is left for the next: a program's socket goes to the process that is forked for it.

Landlock: https://docs.kernel.org/userspace-api/landlock.html
seccomp: https://docs.kernel.org/userspace-api/seccomp_filter.html
"""

from rlframe.reward.sandbox.program import Limits, Outcome, Program
from rlframe.reward.sandbox.sandbox import Isolation, Sandbox, SandboxFailed, SandboxUnavailable

__all__ = ["Isolation", "Limits", "Outcome", "Program", "Sandbox", "SandboxFailed", "SandboxUnavailable"]
