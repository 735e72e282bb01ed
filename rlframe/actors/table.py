"""`entry_of`: what the Ray cluster knows of an actor."""

from __future__ import annotations

from typing import Any

import ray
from ray._private.state import actors

from rlframe.actors.replicas import Handle


def entry_of(handle: Handle) -> dict[str, Any]:
    """Ray's entry, with "State" ("ALIVE", "DEAD", ...), "Pid" and "Address"; empty before the actor is known."""
    return actors(handle._actor_id.hex())


def is_alive(handle: Handle) -> bool:
    """False for an actor that has not started, or restarts, and would answer no call; and for a dead actor."""
    return entry_of(handle).get("State") == "ALIVE"


def node_id(_: Any) -> str:
    """The id of the calling actor's node: `handle.__ray_call__.remote(node_id)`.

    It stands here because the actor's process imports the module of a function that it is to call.
    """
    return ray.get_runtime_context().get_node_id()
