"""`RunFailed`: what ends a run and is told to a person in its own words, without a traceback of ours."""

from __future__ import annotations


class RunFailed(RuntimeError):
    """The message says what failed, where, and what was waited for or what to do."""


class Stalled(RunFailed):
    """Nothing moved for longer than the bound; the message says who waits for what."""


class ConfigError(ValueError):
    """A config that cannot run: every line names a key, what is wrong with it and what would be right."""


class Hung(RuntimeError):
    """An earlier call never came back, so this worker will score nothing more and must be replaced."""
