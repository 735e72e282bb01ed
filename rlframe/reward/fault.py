"""`Fault`: the reason that a program fails a case of its tests."""

from __future__ import annotations

from dataclasses import dataclass

from rlframe.sandbox import Outcome

QUOTED_CHARS = 200  # of an output


@dataclass(frozen=True, slots=True)
class Fault:
    """A failed case. `text` may quote the program."""

    text: str
    is_timeout: bool = False

    @classmethod
    def of(cls, outcome: Outcome) -> Fault:
        """The fault of a case that has no output: status and detail."""
        detail = outcome.detail[-QUOTED_CHARS:]
        return cls(f"{outcome.status}: {detail}" if detail else outcome.status, outcome.status == "timeout")
