"""The nodes of a run's Ray cluster: resources and labels of each node, and resources that the run lacks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import ray
from ray._private.state import available_resources_per_node

from rlframe.cluster.placement import Slot, meet_labels

NODE_ID = "ray.io/node-id"  # a label of every node; the values differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A living node. Amounts are by Ray's names: "CPU", "GPU"."""

    total: dict[str, float]
    free: dict[str, float]
    labels: dict[str, str]

    def __str__(self) -> str:
        amounts = [f"{kind} {self.free.get(kind, 0):g} of {self.total.get(kind, 0):g} free" for kind in ("CPU", "GPU")]
        labels = ", ".join(f"{name}: {value}" for name, value in sorted(self.labels.items()))
        return f"{', '.join(amounts)}, labels {{{labels}}}"

    def can_hold(self, slot: Slot) -> bool:
        """True if the node, when nothing runs on it, has room for the slot, and its labels meet the slot's."""
        asked = {"CPU": slot.cpus, "GPU": slot.gpus} | slot.resources
        enough = all(amount <= self.total.get(kind, 0) for kind, amount in asked.items())
        return enough and meet_labels(self.labels, slot.labels)


def living() -> list[Node]:
    free = available_resources_per_node()
    return [
        Node(
            total=node["Resources"],
            free=free.get(node["NodeID"], {}),
            labels={name: value for name, value in node["Labels"].items() if name != NODE_ID},
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def most_gpus(nodes: list[Node]) -> float:
    """GPUs of the node with the most GPUs; 0 without nodes."""
    return max((node.total.get("GPU", 0) for node in nodes), default=0)


def describe(nodes: list[Node]) -> str:
    """Nodes, equal ones counted: `2 x (CPU 8 of 8 free, GPU 0 of 1 free, labels {})`."""
    kinds = Counter(str(node) for node in nodes)
    return "; ".join(f"{count} x ({kind})" for kind, count in kinds.items()) or "none"


def shortages(slots: list[Slot], nodes: list[Node]) -> list[str]:
    """A line for each kind of slot that no node can hold, and for CPUs or GPUs that all nodes together lack.

    A run that lacks something waits until further nodes join the cluster.
    """
    lines = {
        slot.kind: f"{slot.name} needs CPU {slot.cpus:g}, GPU {slot.gpus:g}{_custom(slot)} and the labels "
        f"{slot.labels} of one node"
        for slot in slots
        if not any(node.can_hold(slot) for node in nodes)
    }
    demand = {"CPU": sum(slot.cpus for slot in slots), "GPU": sum(slot.gpus + slot.workers for slot in slots)}
    supply = {kind: sum(node.total.get(kind, 0) for node in nodes) for kind in demand}
    totals = [
        f"the run needs {kind} {demand[kind]:g}, and the cluster has {supply[kind]:g}"
        for kind in demand
        if demand[kind] > supply[kind]
    ]
    return [f"{line}; the cluster's nodes: {describe(nodes)}" for line in [*lines.values(), *totals]]


def _custom(slot: Slot) -> str:
    """
    >>> _custom(Slot(kind="rollout", index=0, cpus=1, gpus=0, resources={"rollout": 1}))
    ', rollout 1'
    """
    return "".join(f", {name} {amount:g}" for name, amount in slot.resources.items())
