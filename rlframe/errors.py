"""`RunFailed`: what ends a run and is told to a person in its own words, without a traceback of ours."""

from __future__ import annotations


class RunFailed(RuntimeError):
    """The message says what failed, where, and what was waited for or what to do."""


class Stalled(RunFailed):
    """Nothing moved for longer than the bound; the message says who waits for what."""
