"""The activities of this process: what it computes, and since when, for the driver that asks while it computes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NamedTuple


class Doing(NamedTuple):
    """An activity as an actor reports it."""

    text: str  # "backward of micro-batch 3 of 8"
    seconds: float


@dataclass(slots=True, kw_only=True, eq=False)
class Activity:
    """A part of the work of this process, perhaps inside another one."""

    text: str
    subject: str  # of the work, such as a prompt; empty: the text tells all
    outer: Activity | None
    since: float = field(default_factory=time.monotonic)


_open: dict[Activity, None] = {}  # a set in the order of beginnings
_innermost: ContextVar[Activity | None] = ContextVar("innermost", default=None)  # of a thread or a task


@contextmanager
def doing(text: str, subject: str = "") -> Iterator[None]:
    """Names the work of the `with` block, in place of the work around it, whose subject it has by default.

    >>> with doing("reward code", "gsm8k-104"):
    ...     with doing("sandbox case 7"):
    ...         longest().text
    'sandbox case 7 of gsm8k-104'
    """
    outer = _innermost.get()
    activity = Activity(text=text, subject=subject or (outer.subject if outer else ""), outer=outer)
    token = _innermost.set(activity)
    _open[activity] = None
    try:
        yield
    finally:
        del _open[activity]
        _innermost.reset(token)


def note(text: str) -> None:
    """Renames the innermost work of this thread or task, whose clock restarts; without any, does nothing."""
    if (activity := _innermost.get()) is not None:
        activity.text, activity.since = text, time.monotonic()


def longest() -> Doing | None:
    """The activity of this process that began first, of those without a named part. For any thread."""
    activities = list(_open)
    outer = {activity.outer for activity in activities}
    oldest = min((each for each in activities if each not in outer), key=lambda each: each.since, default=None)
    if oldest is None:
        return None
    text = f"{oldest.text} of {oldest.subject}" if oldest.subject else oldest.text
    return Doing(text, time.monotonic() - oldest.since)
