"""Slots of a run's actors, with numbers worked out by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from rlframe.cluster.placement import bundles, cpu_demand, environment, placement
from rlframe.config.compose import load
from rlframe.errors import ConfigError

Composed = Callable[..., DictConfig]
APART = "+reward.terms.format.actors={count: 2, cpus: 0.25, gpus: 0.5, pip: [marker]}"


def test_every_actor_of_a_run_has_a_slot(composed: Composed) -> None:
    run = load(composed("rollout.engines=2", "rollout.cpus=3", "learner.ranks=2", "learner.cpus=2", APART))
    slots = placement(run)
    assert [(slot.name, slot.cpus, slot.gpus) for slot in slots["rollout"]] == [
        ("rollout-0", 3, 0),
        ("rollout-1", 3, 0),
    ]
    assert [(slot.name, slot.cpus, slot.gpus) for slot in slots["learner"]] == [
        ("learner-0", 2, 0),
        ("learner-1", 2, 0),
    ]
    shared = [("reward-0", run.reward.cpus, 0, [])]
    own = [(f"reward-format-{index}", 0.25, 0.5, ["marker"]) for index in range(2)]
    assert [(slot.name, slot.cpus, slot.gpus, slot.pip) for slot in slots["reward"]] == shared + own


def test_a_local_cluster_offers_the_sum_of_all_slots_rounded_up(composed: Composed) -> None:
    settings = ["rollout.engines=1", "rollout.cpus=3", "learner.ranks=2", "learner.cpus=2"]
    run = load(composed(*settings, "reward.workers=3", "reward.cpus=0.1", APART))
    assert cpu_demand(run) == 8  # 3 + 2 * 2 + 3 * 0.1 + 2 * 0.25 = 7.8
    assert cpu_demand(run, ["learner"]) == 4
    tenths = load(composed(*settings, "reward.workers=10", "reward.cpus=0.1"))
    assert cpu_demand(tenths) == 8  # 3 + 4 + exactly 1: float errors of ten tenths do not add up


def test_roles_that_a_run_does_not_ask_for_have_no_slots(composed: Composed) -> None:
    assert list(placement(load(composed()), ["rollout", "reward"])) == ["rollout", "reward"]


def test_only_ranks_are_reserved_together(composed: Composed) -> None:
    slots = placement(load(composed("learner.ranks=2")))
    assert {role: {slot.gang for slot in role_slots} for role, role_slots in slots.items()} == {
        "rollout": {None},
        "learner": {"learner"},
        "reward": {None},
    }


def test_an_actor_on_a_cpu_keeps_memory_and_sees_no_gpu(composed: Composed) -> None:
    run = load(composed("rollout.cpus=3", "learner.cpus=0"))
    (engine, *_), (rank, *_), (reward, *_) = placement(run).values()
    common = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "VLLM_NO_USAGE_STATS": "1"}
    memory = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    assert engine.environment == common | memory | hidden | {"OMP_NUM_THREADS": "3"}
    assert rank.environment == common | memory | hidden | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    assert reward.environment == hidden
    assert environment(3, gpus=1) == common | {"OMP_NUM_THREADS": "3"}


def test_a_reward_s_own_actor_sees_the_gpus_that_it_asked_for(composed: Composed) -> None:
    run = load(composed(APART))
    assert [slot.environment for slot in placement(run)["reward"]] == [{"CUDA_VISIBLE_DEVICES": ""}, {}, {}]


def test_workers_of_an_engine_share_its_cores(composed: Composed) -> None:
    run = load(composed("rollout.cpus=7", "rollout.tensor_parallel=2"))
    (engine,) = placement(run, ["rollout"])["rollout"]
    assert (engine.cpus, engine.environment["OMP_NUM_THREADS"]) == (7, "3")


def test_an_engine_with_more_gpus_than_a_node_spans_nodes(composed: Composed) -> None:
    run = load(composed("rollout={gpus: 16, pipeline_parallel: 2, cpus: 4}"))
    (engine,) = placement(run, ["rollout"], node_gpus=8)["rollout"]
    assert (engine.gpus, engine.cpus, engine.workers, engine.gang) == (0, 4, 16, "rollout-0")
    assert [bundle.resources for bundle in bundles([engine])] == [{"GPU": 1, "CPU": 4}, *[{"GPU": 1}] * 15]
    assert "CUDA_VISIBLE_DEVICES" not in engine.environment  # vLLM's workers would inherit it
    for node_gpus in (16, 0):  # 0: nodes with GPUs may still join
        (engine,) = placement(run, ["rollout"], node_gpus)["rollout"]
        assert (engine.gpus, engine.workers, engine.gang) == (16, 0, None)


def test_the_executor_is_the_one_that_the_key_names(composed: Composed) -> None:
    spans = load(composed("rollout={gpus: 2, executor: ray}"))
    assert [slot.workers for slot in placement(spans, ["rollout"], node_gpus=8)["rollout"]] == [2]
    waits = load(composed("rollout={gpus: 16, executor: mp}"))
    assert [slot.workers for slot in placement(waits, ["rollout"], node_gpus=8)["rollout"]] == [0]


def test_copies_inside_an_engine_do_not_span_nodes(composed: Composed) -> None:
    run = load(composed("rollout={gpus: 16, data_parallel: 2}"))
    with pytest.raises(ConfigError, match=r"rollout.data_parallel: an engine of 16 GPUs spans machines with 8"):
        placement(run, ["rollout"], node_gpus=8)


def faults(variables: dict[str, str]) -> int:
    """Page faults of a process that allocates and frees 32 MiB twenty times."""
    code = "import resource\nfor size in [32 << 20] * 20: b'x' * size\nprint(resource.getrusage(0).ru_minflt)"
    return int(subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, check=True).stdout)


def test_an_actor_on_a_cpu_reuses_the_memory_that_it_frees() -> None:
    pages = (32 << 20) // 4096
    assert faults(environment(1, gpus=0)) < 3 * pages < 20 * pages < faults(environment(1, gpus=1))
