"""Room for the weights in Ray's object store, with numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from rlframe.cluster import store
from rlframe.cluster.nodes import Node
from rlframe.cluster.placement import RL, placement
from rlframe.config.compose import load

Composed = Callable[..., DictConfig]
GIB = 1 << 30
# 261 tokens x 64 of tied embeddings; in each of 2 layers q 64 x 64, k and v 32 x 64, o 64 x 64, gate, up and down
# 128 x 64, two norms of 64; a last norm of 64.
PARAMETERS = 261 * 64 + 2 * (64 * 64 + 2 * 32 * 64 + 64 * 64 + 3 * 128 * 64 + 2 * 64) + 64


@pytest.mark.parametrize("dtype, size", [("bfloat16", 2), ("float32", 4)])
def test_two_versions_of_the_weights_are_counted(composed: Composed, tiny_model: Path, dtype: str, size: int) -> None:
    run = load(composed(f"model.path={tiny_model}", f"learner.dtype={dtype}", "max_staleness=0"))
    assert store.weight_bytes(run, list(RL)) == 2 * PARAMETERS * size


def test_a_third_version_is_counted_where_training_waits_for_no_load(composed: Composed, tiny_model: Path) -> None:
    run = load(composed(f"model.path={tiny_model}", "learner.dtype=float32", "max_staleness=1"))
    assert store.weight_bytes(run, list(RL)) == 3 * PARAMETERS * 4


def test_a_run_that_sends_no_weights_through_the_store_counts_none(composed: Composed, tiny_model: Path) -> None:
    run = load(composed(f"model.path={tiny_model}"))
    assert store.weight_bytes(run, ["rollout", "reward"]) == 0
    nccl = load(composed(f"model.path={tiny_model}", "rollout.gpus=1", "learner.gpus=1", "weights.backend=nccl"))
    assert store.weight_bytes(nccl, list(RL)) == 0


def test_a_local_store_is_as_large_as_the_weights_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "shared_memory", lambda: 10 * GIB)
    assert store.local_bytes(None, 4 * GIB) == 5 * GIB
    assert store.local_bytes(None, 20 * GIB) == 9 * GIB
    assert store.local_bytes(0.5, 4 * GIB) == GIB // 2


def test_a_store_that_is_too_small_is_named_with_the_right_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "shared_memory", lambda: 10 * GIB)
    assert store.local_problem(4, 4 * GIB) is None
    assert store.local_problem(2, 4 * GIB) == (
        "cluster.object_store_gib: the versions of the weights in use at once take 4.0 GiB, and the store has 2.0; Ray "
        "would write weights to the disk at every step; set 5, or null for a size by the model"
    )
    assert (store.local_problem(None, 18 * GIB) or "").endswith("give /dev/shm 22 GiB (docker run --shm-size)")


def test_a_node_with_a_small_store_counts_only_if_it_may_get_weights(composed: Composed) -> None:
    slots = placement(load(composed("rollout.gpus=1", "learner.gpus=1", "rollout.cpus=1", "learner.cpus=1")))
    sizes = {"large": ("GPU", 8 * GIB), "small": ("GPU", 2 * GIB), "rewards only": ("nothing", GIB)}
    large, small, rewards = (
        Node(total={"CPU": 8, device: 8, "object_store_memory": size}, free={}, labels={})
        for device, size in sizes.values()
    )
    assert store.node_problem(4 * GIB, slots, [large, rewards]) is None
    assert store.node_problem(0, slots, [small]) is None
    problem = store.node_problem(4 * GIB, slots, [large, small, rewards])
    assert problem and "1 of 2 nodes for engines and ranks are smaller (the smallest: 2.0 GiB)" in problem
    assert problem.endswith(f"`ray start --object-store-memory={5 * GIB}`")
