"""`Gang`: a reservation of machines for actors that start together or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ray
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from rlframe.actors.replicas import Handle
from rlframe.cluster.nodes import NODE_ID
from rlframe.cluster.placement import Slot, bundles


class Gang:
    """Ray's placement group for slots of the same gang: actors start once there is room for all of them."""

    def __init__(self, slots: list[Slot], strategy: str = "pack", topology: str | None = None) -> None:
        """`strategy`: of the bundles over nodes, by Ray's names. `topology`: a label with one value for all nodes."""
        self.group = None
        if reserved := bundles(slots):
            resources, labels = [bundle.resources for bundle in reserved], [bundle.labels for bundle in reserved]
            places = {NODE_ID: strategy.upper()} | ({} if topology is None else {topology: "STRICT_PACK"})
            self.group = placement_group(resources, bundle_label_selector=labels, topology_strategy=places)

    def options(self, slot: Slot) -> dict[str, Any]:
        """Ray's options for the actor of a slot: the slot's bundle; empty for a slot outside the gang."""
        if self.group is None or slot.gang is None:
            return {}
        strategy = PlacementGroupSchedulingStrategy(self.group, placement_group_bundle_index=slot.bundle)
        return {"scheduling_strategy": strategy}

    def nodes(self) -> set[str]:
        """Ids of the nodes of the reservation; empty until the cluster has room."""
        if self.group is None:
            return set()
        return set(placement_group_table(self.group)["bundles_to_node_id"].values()) - {""}

    def release(self) -> None:
        """Ends the reservation, and whatever still runs in it."""
        if self.group is not None:
            remove_placement_group(self.group)


def on_gpus_of(slot: Slot, ranks: list[Handle]) -> Slot:
    """The slot of an engine that sees the GPUs of `ranks`, in the order of ranks. The ranks must have started."""
    gpu_ids = [gpu_id for ids in ray.get([rank.__ray_call__.remote(_gpu_ids) for rank in ranks]) for gpu_id in ids]
    return replace(slot, environment=slot.environment | {"CUDA_VISIBLE_DEVICES": ",".join(gpu_ids)})


def _gpu_ids(_: Any) -> list[str]:
    """Ids of the calling actor's GPUs."""
    return ray.get_runtime_context().get_accelerator_ids()["GPU"]
