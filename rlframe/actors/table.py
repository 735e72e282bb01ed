"""`entry_of`: what the Ray cluster knows of an actor."""

from __future__ import annotations

from typing import Any

from ray._private.state import actors

from rlframe.actors.replicas import Handle


def entry_of(handle: Handle) -> dict[str, Any]:
    """Ray's entry, with "State" ("ALIVE", "DEAD", ...), "Pid" and "Address"; empty before the actor is known."""
    return actors(handle._actor_id.hex())


def is_alive(handle: Handle) -> bool:
    """False for an actor that has not started, or restarts, and would answer no call; and for a dead actor."""
    return entry_of(handle).get("State") == "ALIVE"
