"""The sandbox's own failures. None of them is a program's fault: a program's errors are an `Outcome`."""

from __future__ import annotations


class SandboxUnavailable(RuntimeError):
    """This machine lacks the requested isolation. The message says what each level misses. No program has run."""


class SandboxFailed(RuntimeError):
    """The sandbox itself broke while a program ran: the program has no verdict."""


class PackagesUnavailable(RuntimeError):
    """The packages that programs may import cannot be installed. The message says why, and what to do."""
