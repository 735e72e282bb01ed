"""Machines by `--cluster`, and kinds of GPUs by the names of drivers."""

import pytest

from rlframe.cluster.nodes import Node
from rlframe.errors import ConfigError
from rlframe.plan.devices import GPUS, gpu_named, gpu_reported
from rlframe.plan.machines import alike, host_memory, parse_cluster, this_machine
from rlframe.plan.nodes import machines_of
from rlframe.plan.numbers import GIB


def test_a_cluster_is_nodes_times_gpus_of_a_kind():
    machines = parse_cluster("4x8xH100")
    assert len(machines) == 4 and {(machine.gpus, machine.gpu) for machine in machines} == {(8, GPUS["H100"])}
    assert machines[0].host_bytes == 8 * 256 * GIB and not machines[0].measured
    assert [machine.gpus for machine in parse_cluster("2xh200")] == [2]
    assert [machine.gpus for machine in parse_cluster("2x8xa100-40, 3xcpu")] == [8, 8, 0, 0, 0]


def test_memory_of_nodes_can_be_told():
    [machine] = parse_cluster("8xH100", host_gib=1000, shm_gib=100)
    assert (machine.host_bytes, machine.shm_bytes, machine.measured) == (1000 * GIB, 100 * GIB, True)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("4xx8", "'4xx8' is no group of nodes; write NODESxGPUSxKIND, as 4x8xH100"),
        ("", "'' is no group of nodes"),
        ("8", "'8' is no group of nodes"),
        ("0x8xH100", "'0x8xH100' has no nodes or no GPUs"),
        ("4x8xH101", "4x8xH101: there is no GPU of the kind 'H101' in the plan's list; did you mean H100"),
        ("2x8xTPU", "there is no GPU of the kind 'TPU' in the plan's list; known are T4"),
    ],
)
def test_a_cluster_that_does_not_parse_is_refused(text, reason):
    with pytest.raises(ConfigError) as error:
        parse_cluster(text)
    assert str(error.value).startswith("--cluster: ") and reason in str(error.value)


def test_names_of_drivers_and_of_ray_mean_kinds():
    names = {
        "NVIDIA H100 80GB HBM3": "H100", "NVIDIA H200": "H200", "NVIDIA A100-SXM4-80GB": "A100", "A100-40G": "A100-40",
        "NVIDIA GeForce RTX 4090": "RTX4090", "NVIDIA L40S": "L40S", "NVIDIA L4": "L4", "NVIDIA GB200": "GB200",
        "Tesla T4": "T4", "NVIDIA GH200 480GB": "GH200",
    }  # fmt: skip
    for name, kind in names.items():
        assert gpu_reported(name) == GPUS[kind], name
    assert gpu_reported("NVIDIA A100-SXM4-40GB", 40 * GIB) == GPUS["A100-40"]
    assert gpu_reported("Some Accelerator 9000") is None
    assert gpu_named("h100") == GPUS["H100"]


def test_this_machine_has_memory_within_its_container():
    [machine] = this_machine(with_gpus=False)
    assert 0 < machine.host_bytes == host_memory() and machine.measured and machine.gpus == 0


def test_nodes_of_ray_are_machines():
    resources = {"CPU": 8, "GPU": 4, "memory": 70 * GIB, "object_store_memory": 30 * GIB, "accelerator_type:H100": 1}
    node = Node(total=resources, free=resources, labels={"zone": "a"})
    plain = Node(total={"CPU": 2, "memory": GIB}, free={}, labels={})
    with_gpus, without = machines_of([node, plain])
    assert (with_gpus.gpus, with_gpus.gpu, with_gpus.labels) == (4, GPUS["H100"], (("zone", "a"),))
    assert (with_gpus.host_bytes, with_gpus.shm_bytes) == (100 * GIB, 30 * GIB)
    assert (without.gpus, without.gpu, without.measured) == (0, None, False)


def test_equal_machines_are_counted():
    assert [number for number, _ in alike(parse_cluster("2x8xH100,1x4xH100,3xcpu"))] == [2, 1, 3]
