"""Where the roles of a run start: real raylets with labels and resources, on GPUs that do not exist."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import ray
from omegaconf import DictConfig
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

from rlframe.cluster.actor import start_actor
from rlframe.cluster.gang import Gang
from rlframe.cluster.placement import Bundle, bundles, placement
from rlframe.config.compose import load
from rlframe.errors import ConfigError

Composed = Callable[..., DictConfig]
DOMAIN = "ray.io/gpu-domain"
NAME = "name"  # label of each node
LEARNERS = {"a0": "a", "a1": "a", "b0": "b"}  # name -> domain; 2 CPUs each
ENGINES = ["r0", "r1"]  # 4 CPUs each, and room for 2 engines by a resource


@pytest.fixture(scope="module")
def five_machines() -> Iterator[None]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for name, domain in LEARNERS.items():
        cluster.add_node(num_cpus=2, labels={NAME: name, DOMAIN: domain, "rlframe.io/role": "learner"}, wait=False)
    for name in ENGINES:
        labels = {NAME: name, "rlframe.io/role": "rollout"}
        cluster.add_node(num_cpus=4, labels=labels, resources={"rollout": 2}, wait=False)
    cluster.wait_for_nodes()
    ray.init(cluster.address, log_to_driver=False)
    yield
    ray.shutdown()
    cluster.shutdown()


class Process:
    """An actor that is somewhere."""

    def __init__(self, name: str) -> None:
        self.name = name


def names_of(node_ids: list[str]) -> list[str]:
    labels = {node["NodeID"]: node["Labels"].get(NAME, "head") for node in ray.nodes()}
    return sorted(labels[node_id] for node_id in node_ids)


def homes_of_ranks(composed: Composed, *settings: str, within_s: float = 60) -> list[str]:
    """The node of each rank; empty where the cluster has no room for all of them within that time."""
    run = load(composed("cluster=by_role", "learner.cpus=1", *settings))
    gang = Gang(placement(run)["learner"], run.learner.strategy, run.learner.topology)
    assert gang.group is not None
    try:
        reserved = gang.group.wait(within_s)
        return names_of(list(placement_group_table(gang.group)["bundles_to_node_id"].values())) if reserved else []
    finally:
        gang.release()


def homes_of_engines(composed: Composed, *settings: str, room: int = 2) -> list[str]:
    """The node of each engine that starts; the nodes have room for `room` of them."""
    run, handles = load(composed("cluster=by_role", "rollout.cpus=1", *settings)), {}
    for slot in placement(run)["rollout"]:
        start_actor(slot, Process, (), handles)
        time.sleep(0.3)  # so that the next one sees where this one is
    asked = [
        handle.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for handle in handles.values()
    ]
    ray.wait(asked, num_returns=room, timeout=60)
    started, _ = ray.wait(asked, num_returns=len(asked), timeout=1)
    homes = names_of(ray.get(started))
    for handle in handles.values():
        ray.kill(handle)
    return homes


def test_ranks_are_packed_on_the_nodes_of_the_learner(composed: Composed, five_machines: None) -> None:
    assert len(set(homes_of_ranks(composed, "learner.ranks=2"))) == 1
    assert len(set(homes_of_ranks(composed, "learner.ranks=6", "prompts_per_step=6"))) == 3


def test_ranks_of_one_domain_do_not_straddle_two(composed: Composed, five_machines: None) -> None:
    together = f"learner.topology={DOMAIN}"
    assert homes_of_ranks(composed, "learner.ranks=4", together) == ["a0", "a0", "a1", "a1"]
    # a domain holds 4
    assert homes_of_ranks(composed, "learner.ranks=6", "prompts_per_step=6", together, within_s=2) == []


def test_ranks_follow_the_strategy(composed: Composed, five_machines: None) -> None:
    # a node holds 2
    assert homes_of_ranks(composed, "learner.ranks=4", "learner.strategy=strict_pack", within_s=2) == []
    spread = homes_of_ranks(composed, "learner.ranks=3", "prompts_per_step=6", "learner.strategy=strict_spread")
    assert spread == ["a0", "a1", "b0"]


def test_engines_spread_over_the_nodes_of_the_rollout(composed: Composed, five_machines: None) -> None:
    assert homes_of_engines(composed, "rollout.engines=2") == ["r0", "r1"]
    assert len(set(homes_of_engines(composed, "rollout.engines=2", "rollout.strategy=pack"))) == 1


def test_a_resource_bounds_the_engines_of_a_node(composed: Composed, five_machines: None) -> None:
    """Each node has room for 4 engines by its CPUs, and for 2 by its resource."""
    homes = homes_of_engines(composed, "rollout.engines=5", "rollout.resources={rollout: 1}", room=4)
    assert Counter(homes) == {"r0": 2, "r1": 2}


def test_a_gang_reserves_the_resources_of_its_ranks(composed: Composed) -> None:
    run = load(composed("cluster=by_role", "learner.ranks=2", "learner.cpus=1", "learner.resources={nvlink: 0.5}"))
    reserved = bundles(placement(run)["learner"])
    assert reserved == [Bundle(resources={"CPU": 1, "nvlink": 0.5}, labels={"rlframe.io/role": "learner"})] * 2


@pytest.mark.parametrize("name", ["CPU", "GPU", "memory"])
def test_rays_own_resources_have_other_keys(composed: Composed, name: str) -> None:
    with pytest.raises(ConfigError, match=r"rollout\.resources.*is Ray's own resource; cpus, gpus and labels"):
        load(composed("cluster=existing", f"+rollout.resources={{{name}: 1}}"))
