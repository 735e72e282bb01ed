"""Actors on machines."""

from rlframe.cluster.nodes import Node
from rlframe.plan.layout import layout
from rlframe.plan.machines import parse_cluster
from rlframe.plan.nodes import machines_of
from tests.plan.conftest import QWEN3_8B

GPUS = ("learner.gpus=1", "rollout.gpus=1")


def test_ranks_are_packed_and_engines_take_the_emptiest_nodes(run_of):
    run = run_of(QWEN3_8B, "learner.gpus=1", "rollout.gpus=4", "learner.ranks=8", "rollout.engines=3")
    placed = layout(run, parse_cluster("3x8xH100"))
    assert [(node.count("learner"), node.count("rollout")) for node in placed.nodes] == [(8, 0), (0, 2), (0, 1)]
    assert placed.gpus == 20 and placed.unplaced == []
    assert placed.text()[0].startswith("8 H100: 8 ranks")


def test_colocated_engines_are_with_their_ranks(run_of):
    keys = ("placement=colocated", "learner.gpus=1", "rollout.gpus=2", "rollout.engines=2", "learner.ranks=4")
    placed = layout(run_of(QWEN3_8B, *keys), parse_cluster("2x2xH100"))
    assert [node.contents() for node in placed.nodes] == ["2 ranks, 1 reward worker, 1 engine", "2 ranks, 1 engine"]
    assert placed.gpus == 4


def test_a_large_engine_spans_nodes(run_of):
    placed = layout(run_of(QWEN3_8B, "learner.gpus=1", "rollout.gpus=16"), parse_cluster("3x8xH100"))
    assert sum(node.workers for node in placed.nodes) == 16
    assert placed.unplaced == []


def test_actors_without_a_gpu_left_are_named(run_of):
    placed = layout(run_of(QWEN3_8B, *GPUS, "learner.ranks=2"), parse_cluster("2xH100"))
    assert placed.unplaced == ["rollout-0"] and placed.gpus == 3


def test_labels_choose_nodes(run_of):
    nodes = [
        Node(total={"GPU": 1, "memory": 1 << 40}, free={}, labels={"rlframe.io/role": role})
        for role in ("rollout", "learner")
    ]
    labels = (
        "cluster=existing",
        "rollout.labels={rlframe.io/role: rollout}",
        "learner.labels={rlframe.io/role: '!rollout'}",
    )
    placed = layout(run_of(QWEN3_8B, *GPUS, *labels), machines_of(nodes))
    assert [(node.count("rollout"), node.count("learner")) for node in placed.nodes] == [(1, 0), (0, 1)]
