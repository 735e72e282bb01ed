"""Actors on machines: ranks packed, engines spread, as the start places them where a cluster is empty."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlframe.cluster.placement import RL, Slot, meet_labels, placement
from rlframe.plan.machines import Machine
from rlframe.plan.numbers import plural

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig

NOUNS = {"learner": "rank", "rollout": "engine", "teacher": "teacher engine"}  # by the first word of a slot's kind


@dataclass(slots=True, kw_only=True, eq=False)
class Node:
    """A machine and the actors that it gets, in the course of `layout`."""

    machine: Machine
    free: float  # GPUs
    actors: list[Slot] = field(default_factory=list)
    workers: int = 0  # of engines over several machines: vLLM's own actors with a GPU each

    def count(self, kind: str) -> int:
        """Actors of a kind: "learner", "rollout", "reward", ..."""
        return sum(slot.kind == kind for slot in self.actors)

    def takes(self, slot: Slot, gpus: float) -> bool:
        if gpus > self.free or self.machine.labels is None:
            return gpus <= self.free
        return meet_labels(dict(self.machine.labels), slot.labels)

    def contents(self) -> str:
        """The actors by kind: "8 ranks, 1 engine"."""
        parts = [
            plural(count, NOUNS.get(kind, "reward worker"))
            for kind, count in sorted(Counter(slot.kind.partition("-")[0] for slot in self.actors).items())
        ]
        spread = [f"{plural(self.workers, 'worker')} of engines over several nodes"] if self.workers else []
        return ", ".join([*parts, *spread]) or "nothing"

    def add(self, slot: Slot, gpus: float) -> None:
        self.actors.append(slot)
        self.free -= gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where each actor runs."""

    nodes: list[Node]
    unplaced: list[str]  # names of actors for which no machine has GPUs left
    gpus: int  # that the run asks for

    def text(self) -> list[str]:
        """A line for each kind of node: "2 x 8 H100: 8 ranks"."""
        kinds = Counter(_describe(node) for node in self.nodes)
        return [f"{count} x {kind}" if count > 1 else kind for kind, count in kinds.items()]


def layout(run: RunConfig, machines: Iterable[Machine]) -> Layout:
    """Raises ConfigError for an engine that no machine can hold and that cannot span machines."""
    nodes = [Node(machine=machine, free=machine.gpus) for machine in machines]
    most_gpus = max((node.machine.gpus for node in nodes), default=0)
    slots = placement(run, RL, most_gpus or math.inf)
    unplaced: list[str] = []
    bundles: dict[int, list[Slot]] = {}
    for slot in slots["learner"]:
        bundles.setdefault(slot.bundle, []).append(slot)
    colocated = {slot.bundle: slot for slot in slots["rollout"] if slot.gang == "learner"}
    for bundle, ranks in bundles.items():
        gpus = math.fsum(slot.gpus for slot in ranks)
        members = [*ranks, *([colocated[bundle]] if bundle in colocated else [])]
        node = next((node for node in nodes if node.takes(ranks[0], gpus)), None)
        if node is None:
            unplaced += [slot.name for slot in members]
            continue
        for slot in members:
            node.add(slot, slot.gpus)
    others = [slot for slot in slots["rollout"] if slot.gang != "learner"]
    others += slots.get("teacher", []) + slots["reward"]
    for slot in others:
        if slot.workers:
            unplaced += [] if _span(slot, nodes) else [slot.name]
            continue
        node = max((node for node in nodes if node.takes(slot, slot.gpus)), key=_room(slot), default=None)
        if node is None:
            unplaced.append(slot.name)
        else:
            node.add(slot, slot.gpus)
    asked = sum(slot.gpus + slot.workers for role in slots.values() for slot in role)
    return Layout(nodes=nodes, unplaced=unplaced, gpus=math.ceil(asked))


def _room(slot: Slot):
    """The more free GPUs, the better for an engine; without GPUs the fewest actors, and a machine without GPUs."""
    if slot.gpus:
        return lambda node: node.free
    return lambda node: (-len(node.actors), -node.machine.gpus)


def _span(slot: Slot, nodes: list[Node]) -> bool:
    """Gives an engine's workers GPUs on the nodes with the most free ones; False if there are too few."""
    roomy = sorted((node for node in nodes if node.takes(slot, 1)), key=lambda node: -node.free)
    if sum(int(node.free) for node in roomy) < slot.workers:
        return False
    left = slot.workers
    for node in roomy:
        taken = min(left, int(node.free))
        node.free -= taken
        node.workers += taken
        left -= taken
        if not left:
            break
    roomy[0].actors.append(slot)
    return True


def _describe(node: Node) -> str:
    machine = node.machine
    name = f"{machine.gpus} {machine.gpu.name if machine.gpu else 'GPUs'}" if machine.gpus else "CPUs"
    free = [f"{node.free:g} GPUs free"] if node.free >= 1 else []
    return f"{name}: {', '.join([node.contents(), *free])}"
