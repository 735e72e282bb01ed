"""Nodes that are about to leave the cluster."""

from __future__ import annotations

import ray
from ray._private.state import state


def draining_nodes() -> set[str]:
    """Ids of the nodes that Ray drains: they leave once they are empty, at the latest at their deadline."""
    return set(state.get_draining_nodes())


def driver_is_on(nodes: set[str]) -> bool:
    """True if this process runs on one of `nodes`, by their ids."""
    return ray.get_runtime_context().get_node_id() in nodes
