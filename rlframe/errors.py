"""Errors with a message for a person. The command prints the message without a traceback."""

from __future__ import annotations


class RunFailed(RuntimeError):
    """Ends a run. The message says what failed and where, and what to do or which wait ended."""


class Stalled(RunFailed):
    """Nothing moved for longer than the bound. The message says which actor waits for which."""


class ConfigError(ValueError):
    """A config that cannot run. Every line names a key, the problem, and the remedy."""


class Hung(RuntimeError):
    """An earlier call never returned: the worker refuses further calls and must be replaced."""
