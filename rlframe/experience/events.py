"""Events of a run's prompts: each is admitted, scored, and then taken by a step or dropped. Positions may be skipped.

The ledger's state is the fold of its events, and a log of events is a list of plain values a line:

    Admitted(position=7, prompt_id="arithmetic/3@0", ...)    ["Admitted", 7, "arithmetic/3@0", ...]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from rlframe.experience.outcome import Outcome
from rlframe.record.frames import Location

DropReason: TypeAlias = Literal["no signal", "given up"]  # by dynamic sampling; by an episode worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A position's prompt is sampled from now on."""

    position: int  # in the prompt stream
    prompt_id: str
    number: int  # of the attempt: 1, 2, ...
    version: int  # oldest policy version at admission
    order: int  # of admission: 0, 1, ...
    epoch: int  # of the log: tokens and group are in files of this epoch, or of later ones

    @property
    def key(self) -> str:
        """The name of the attempt's order: "arithmetic/7@0#2"."""
        return f"{self.prompt_id}#{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A position of the stream is not sampled."""

    position: int
    reason: str  # "curriculum", or a SkipReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A prompt's group has its rewards. A second event for a prompt in flight replaces the first."""

    key: str  # of the attempt
    location: Location | None  # of the group's body; None: the run keeps no log
    signal: bool  # False: dynamic sampling will drop the group
    outcome: Outcome | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reopened:
    """A scored group's body is lost: the prompt is sampled again, under the same attempt."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A prompt leaves without being trained on."""

    key: str
    reason: DropReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A step takes groups, to make the next policy version."""

    version: int  # of the policy that is trained
    keys: tuple[str, ...]  # in the order of the batch


Event: TypeAlias = Admitted | Skipped | Scored | Reopened | Dropped | Taken
KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in (Admitted, Skipped, Scored, Reopened, Dropped, Taken)}


class RefusedEvent(ValueError):
    """An event that cannot follow the events before it."""


def to_values(event: Event) -> list[Any]:
    """The event as a list of values that JSON and msgpack give back as they are."""
    return [type(event).__name__, *(_value(getattr(event, name)) for name in event.__dataclass_fields__)]


def _value(value: Any) -> Any:
    return [value.file, value.byte] if isinstance(value, Location) else list(value) if type(value) is tuple else value


def from_values(values: list[Any]) -> Event:
    """The event of `to_values`, after JSON or msgpack. Raises RefusedEvent."""
    try:
        name, *fields = values
        kind = KINDS[name]
        named = dict(zip(kind.__dataclass_fields__, fields, strict=True))
        if kind is Scored and named["location"] is not None:
            file, byte = named["location"]
            named["location"] = Location(file=file, byte=byte)
        if kind is Taken:
            named["keys"] = tuple(named["keys"])
        return kind(**named)
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedEvent(f"{values!r:.200} is no event") from error
