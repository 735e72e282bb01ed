"""Actors that are reserved together: where they run, and which GPUs they see. Ray hands out GPUs that do not exist."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
import ray
from omegaconf import DictConfig
from ray.cluster_utils import Cluster

from rlframe.cluster.actor import start_actor
from rlframe.cluster.gang import Gang, on_gpus_of
from rlframe.cluster.placement import Bundle, Slot, bundles, placement
from rlframe.config.compose import load

Composed = Callable[..., DictConfig]
SHARED = [
    "placement=colocated",
    "rollout={engines: 2, gpus: 2, cpus: 5}",
    "learner={ranks: 4, gpus: 1, cpus: 3}",
]


def place(slot: Slot) -> tuple[str, float, str | None, int]:
    return slot.name, slot.gpus, slot.gang, slot.bundle


def test_engines_ask_for_no_gpu_and_stand_with_their_ranks(composed: Composed) -> None:
    slots = placement(load(composed(*SHARED)))
    assert [place(slot) for slot in slots["rollout"]] == [
        ("rollout-0", 0, "learner", 0),
        ("rollout-1", 0, "learner", 1),
    ]
    assert [place(slot) for slot in slots["learner"]] == [
        ("learner-0", 1, "learner", 0),
        ("learner-1", 1, "learner", 0),
        ("learner-2", 1, "learner", 1),
        ("learner-3", 1, "learner", 1),
    ]
    pinned = {slot.environment.get("PYTORCH_ALLOC_CONF") for slot in slots["learner"]}
    assert pinned == {"pinned_max_round_threshold_mb:1"}
    # 2 ranks x 3 CPUs + an engine's 5; the ranks' GPUs are also the engine's
    node = Bundle(resources={"CPU": 11, "GPU": 2}, labels={})
    assert bundles(slots["learner"] + slots["rollout"]) == [node, node]


def test_ranks_with_gpus_of_their_own_are_on_any_machines(composed: Composed) -> None:
    learner = ["learner={ranks: 4, gpus: 1, cpus: 2}", "cluster=existing", "+learner.labels.zone=a"]
    slots = placement(load(composed("rollout.gpus=2", *learner)))
    assert [place(slot) for slot in slots["rollout"]] == [("rollout-0", 2, None, 0)]
    assert bundles(slots["learner"]) == [Bundle(resources={"CPU": 2, "GPU": 1}, labels={"zone": "a"})] * 4


def test_engines_of_an_evaluation_have_gpus_of_their_own(composed: Composed) -> None:
    slots = placement(load(composed(*SHARED)), ["rollout", "reward"])
    assert [place(slot) for slot in slots["rollout"]] == [("rollout-0", 2, None, 0), ("rollout-1", 2, None, 0)]


def test_colocated_engines_on_cpus_are_on_any_machine(composed: Composed) -> None:
    slots = placement(load(composed("placement=colocated", "rollout.engines=3", "learner.ranks=2")))
    assert {slot.gang for slot in slots["rollout"]} == {None}
    assert bundles(slots["learner"]) == [Bundle(resources={"CPU": 2}, labels={})] * 2


class Process:
    """An actor that tells where it is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def where(self) -> tuple[str, str]:
        """Its machine, and the GPUs that CUDA would show to it."""
        return ray.get_runtime_context().get_node_id(), os.environ.get("CUDA_VISIBLE_DEVICES", "all")


@pytest.fixture
def two_machines() -> Iterator[None]:
    """Each with 2 GPUs that do not exist."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 11, "num_gpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=11, num_gpus=2)
    ray.init(cluster.address, log_to_driver=False)
    yield
    ray.shutdown()
    cluster.shutdown()


def test_an_engine_sees_the_gpus_of_its_ranks_on_their_machine(composed: Composed, two_machines: None) -> None:
    slots = placement(load(composed(*SHARED)))
    gang = Gang(slots["learner"] + slots["rollout"])
    ranks = [start_actor(slot, Process, (), {}, **gang.options(slot)) for slot in slots["learner"]]
    engine_slots = [on_gpus_of(slot, ranks[2 * slot.index : 2 * slot.index + 2]) for slot in slots["rollout"]]
    engines = [start_actor(slot, Process, (), {}, **gang.options(slot)) for slot in engine_slots]
    nodes, gpus = zip(*ray.get([actor.where.remote() for actor in ranks + engines]), strict=True)
    assert nodes[0] == nodes[1] == nodes[4] != nodes[2] == nodes[3] == nodes[5]
    assert sorted(gpus[:2]) == sorted(gpus[2:4]) == ["0", "1"]  # each rank has a GPU of its machine to itself
    assert gpus[4:] == (f"{gpus[0]},{gpus[1]}", f"{gpus[2]},{gpus[3]}")
