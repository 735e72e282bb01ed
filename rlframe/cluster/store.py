"""Ray's object store: the room that a run's weights need on a node, the size of a local store, and stores too small.

A model of 0.6e9 parameters in bfloat16 is 1.2e9 bytes. While the engines load a version, the version before is still
in use: 2.4e9 bytes, and 1 GiB for trajectories on their way, so a local cluster gets a store of 3.2 GiB. With
max_staleness of 1 or more a slow engine may still load a third version: 4.4 GiB.
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rlframe.cluster.nodes import Node
from rlframe.cluster.placement import Role, Slot
from rlframe.config.keys import RunKeys
from rlframe.model import base_model
from rlframe.model.precision import WIDTHS
from rlframe.weights import object_store

if TYPE_CHECKING:
    from rlframe.config.keys import SharedKeys

GIB = 1 << 30
SHARED_MEMORY = Path("/dev/shm")
LOCKSTEP_VERSIONS = 2
TRAJECTORIES = GIB
LARGEST_SHARE = 0.9  # of the machine's shared memory, for a local store


def weight_bytes(run: SharedKeys, roles: list[Role]) -> int:
    """Bytes of the versions that are in the store at once; 0 in a run whose weights do not pass through the store."""
    if not isinstance(run, RunKeys) or not {"rollout", "learner"} <= set(roles):
        return 0
    if run.weights.backend != "object_store":
        return 0
    versions = object_store.VERSIONS if run.max_staleness else LOCKSTEP_VERSIONS
    return versions * base_model.parameters(run.model.path) * WIDTHS[run.learner.dtype]


def local_bytes(object_store_gib: float | None, weights: int) -> int:
    """The size of a local cluster's store: `cluster.object_store_gib`, or else by the weights and the shared memory."""
    if object_store_gib is not None:
        return int(object_store_gib * GIB)
    return min(weights + TRAJECTORIES, int(LARGEST_SHARE * shared_memory()))


def shared_memory() -> int:
    """Bytes of this machine's shared memory, in which Ray keeps the store."""
    return shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else TRAJECTORIES


def local_problem(object_store_gib: float | None, weights: int) -> str | None:
    """A line if a local cluster's store cannot hold the weights, so that Ray would move weights to the disk."""
    size = local_bytes(object_store_gib, weights)
    if size >= weights:
        return None
    wanted = math.ceil((weights + TRAJECTORIES) / GIB)
    remedy = f"give {SHARED_MEMORY} {math.ceil(wanted / LARGEST_SHARE)} GiB (docker run --shm-size)"
    if object_store_gib is not None:
        remedy = f"set {wanted}, or null for a size by the model"
    return (
        f"cluster.object_store_gib: the versions of the weights in use at once take {weights / GIB:.1f} GiB, and the "
        f"store has {size / GIB:.1f}; Ray would write weights to the disk at every step; {remedy}"
    )


def node_problem(weights: int, slots: dict[Role, list[Slot]], nodes: list[Node]) -> str | None:
    """A line if nodes of a running cluster that may get engines or ranks have too small a store for the weights."""
    users = slots.get("rollout", []) + slots.get("learner", [])
    stores = [n.total.get("object_store_memory", 0) for n in nodes if any(n.can_hold(slot) for slot in users)]
    small = [size for size in stores if size < weights]
    if not small:
        return None
    return (
        f"cluster.address: the versions of the weights in use at once take {weights / GIB:.1f} GiB, and the object "
        f"stores of {len(small)} of {len(stores)} nodes for engines and ranks are smaller (the smallest: "
        f"{min(small) / GIB:.1f} GiB); Ray would write weights to the disk at every step; start nodes with "
        f"`ray start --object-store-memory={weights + TRAJECTORIES}`"
    )
