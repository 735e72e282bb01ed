"""The nodes of a Ray cluster as the machines of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlframe.plan.devices import gpu_reported
from rlframe.plan.machines import Machine

if TYPE_CHECKING:
    from rlframe.cluster.nodes import Node

ACCELERATOR = "accelerator_type:"  # prefix of the resource by which Ray names a node's kind of GPU


def machines_of(nodes: list[Node]) -> list[Machine]:
    """Ray's "memory" is what tasks may have beside the object store; both together are the host's for a run.

    The operator of a cluster may have told Ray any amount, so it is no measured memory.
    """
    return [_machine(index, node) for index, node in enumerate(nodes)]


def machines_of_cluster(address: str, *, allow_open: bool) -> list[Machine]:
    """Joins a running Ray cluster and leaves it. Raises RunFailed where it does not answer."""
    from rlframe.cluster import existing

    return machines_of(existing.nodes_at(address, allow_open=allow_open))


def _machine(index: int, node: Node) -> Machine:
    kinds = [gpu_reported(name.removeprefix(ACCELERATOR)) for name in node.total if name.startswith(ACCELERATOR)]
    gpus, store = int(node.total.get("GPU", 0)), int(node.total.get("object_store_memory", 0))
    return Machine(
        name=f"node {index}",
        gpus=gpus,
        gpu=kinds[0] if kinds and gpus else None,
        host_bytes=int(node.total.get("memory", 0)) + store,
        shm_bytes=store,
        measured=False,
        labels=tuple(sorted(node.labels.items())),
    )
