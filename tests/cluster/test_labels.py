"""Labels of nodes: which slots ask for which, and which nodes can hold a slot."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from rlframe.cluster.nodes import Node, describe, shortages
from rlframe.cluster.placement import Slot, meets, placement
from rlframe.config.compose import load

Composed = Callable[..., DictConfig]
JUDGE = "+reward.terms.format.actors={count: 1, cpus: 1, gpus: 0, pip: []%s}"


def test_every_role_has_the_labels_of_its_key(composed: Composed) -> None:
    labels = [f"{role}.labels={{role: {role}}}" for role in ("rollout", "learner", "reward")]
    run = load(composed("cluster=existing", "learner.ranks=2", *labels, JUDGE % ""))
    slots = placement(run)
    assert [slot.labels for slot in slots["rollout"]] == [{"role": "rollout"}]
    assert [slot.labels for slot in slots["learner"]] == [{"role": "learner"}] * 2
    assert [slot.labels for slot in slots["reward"]] == [{"role": "reward"}] * 2
    apart = placement(load(composed("cluster=existing", *labels, JUDGE % ", labels: {zone: a}")))["reward"]
    assert {slot.kind: slot.labels for slot in apart} == {"reward": {"role": "reward"}, "reward-format": {"zone": "a"}}


@pytest.mark.parametrize(
    "selector, met",
    [("a", "a"), ("!a", "bc-"), ("in(a, b)", "ab"), ("in(a,b)", "ab"), ("!in(a, b)", "c-")],
)
def test_a_selector_picks_the_nodes_that_ray_would_pick(selector: str, met: str) -> None:
    values = {"a": "a", "b": "b", "c": "c", "-": None}  # -: a node without the label
    assert "".join(name for name, value in values.items() if meets(value, selector)) == met


def test_a_slot_that_no_node_can_hold_is_named_with_all_nodes() -> None:
    small = Node(total={"CPU": 4}, free={"CPU": 1}, labels={"role": "learner"})
    large = Node(total={"CPU": 8, "GPU": 2}, free={"CPU": 8, "GPU": 2}, labels={})
    engine = Slot(kind="rollout", index=0, cpus=8, gpus=2)
    assert shortages([engine], [small, large]) == []
    line, gpus = shortages([engine], [small, small])
    assert gpus.startswith("the run needs GPU 2, and the cluster has 0; ")
    assert line.startswith("rollout-0 needs CPU 8, GPU 2 and the labels {} of one node; ")
    assert line.endswith("2 x (CPU 1 of 4 free, GPU 0 of 0 free, labels {role: learner})")
    labelled = [Slot(kind="rollout", index=index, cpus=1, gpus=0, labels={"role": "rollout"}) for index in range(2)]
    assert len(shortages(labelled, [small, large])) == 1  # one line for a kind
    assert describe([]) == "none"


def test_a_run_that_all_nodes_together_cannot_hold_is_told() -> None:
    node = Node(total={"CPU": 8, "GPU": 4}, free={}, labels={})
    ranks = [Slot(kind="learner", index=index, cpus=1, gpus=1) for index in range(9)]
    assert shortages(ranks[:8], [node, node]) == []
    [line] = shortages(ranks, [node, node])
    assert line.startswith("the run needs GPU 9, and the cluster has 8; the cluster's nodes: 2 x (CPU 0 of 8 free")
