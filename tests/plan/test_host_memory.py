"""Memory of hosts and of the object store."""

from rlframe.cluster import store
from rlframe.plan import host_memory as memory
from rlframe.plan.host_memory import store_bytes, synced_bytes
from rlframe.weights import object_store
from tests.plan.conftest import QWEN3_8B, TINY, shapes_of

GPUS = ("learner.gpus=1", "rollout.gpus=1")


def test_a_node_with_engines_holds_whole_versions_and_one_with_ranks_their_parts(run_of):
    shapes = shapes_of(QWEN3_8B)
    run = run_of(QWEN3_8B, "learner.ranks=8")
    version = 2 * shapes.parameters
    assert store_bytes(run, shapes, ranks=0, engines=3) == memory.TRAJECTORIES + 2 * version
    assert store_bytes(run, shapes, ranks=4, engines=0) == memory.TRAJECTORIES + 2 * version // 2
    ahead = run_of(QWEN3_8B, "max_staleness=1")
    assert store_bytes(ahead, shapes, ranks=0, engines=1) == memory.TRAJECTORIES + 3 * version


def test_weights_between_gpus_need_no_object_store(run_of):
    run = run_of(TINY, *GPUS, "weights.backend=nccl")
    assert store_bytes(run, shapes_of(TINY), ranks=1, engines=1) == memory.TRAJECTORIES


def test_adapters_alone_are_few_bytes(run_of):
    lora = "learner.lora={rank: 2, alpha: 4, targets: [q_proj]}"
    run = run_of(TINY, lora, "weights.adapters=alone")
    assert synced_bytes(run, shapes_of(TINY)) == 2 * 2 * 32
    assert synced_bytes(run_of(TINY, lora), shapes_of(TINY)) == 2 * shapes_of(TINY).parameters


def test_versions_are_those_of_the_object_store():
    assert (memory.LOCKSTEP_VERSIONS, memory.VERSIONS) == (store.LOCKSTEP_VERSIONS, object_store.VERSIONS)
    assert memory.TRAJECTORIES == store.TRAJECTORIES
