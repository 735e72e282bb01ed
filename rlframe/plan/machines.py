"""The machines of a plan: of `--cluster 4x8xH100`, of this machine, or of a Ray cluster's nodes.

4x8xH100           4 nodes with 8 GPUs each
8xH100             a node with 8 GPUs
2x8xH100,4xcpu     2 nodes with 8 GPUs, and 4 without
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from rlframe.errors import ConfigError
from rlframe.plan.devices import Gpu, gpu_named, gpu_reported
from rlframe.plan.numbers import GIB

SHARED_MEMORY = Path("/dev/shm")
CGROUP_LIMITS = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
CPU_NODE_GIB = 256.0  # of a node without GPUs in --cluster
SHM_SHARE = 0.5  # of a node's memory, Linux's size of /dev/shm
GROUP = re.compile(r"(?:(\d+)x)?(\d+)x([A-WYZa-wyz][\w-]*)")
FORM = "write NODESxGPUSxKIND, as 4x8xH100 or 8xH100; NODESxcpu are nodes without GPUs, and a comma joins several"


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A node: its GPUs, host memory and shared memory."""

    name: str
    gpus: int
    gpu: Gpu | None  # None: no GPU, or one that the list of kinds lacks
    host_bytes: int
    shm_bytes: int
    measured: bool  # memory is the machine's own; else a usual size of such a node
    labels: tuple[tuple[str, str], ...] | None = None  # None: not known, so any label is there


def parse_cluster(text: str, host_gib: float | None = None, shm_gib: float | None = None) -> list[Machine]:
    """The nodes that `--cluster` describes; `host_gib`, `shm_gib`: memory of each. Raises ConfigError."""
    machines: list[Machine] = []
    for group in text.split(","):
        found = GROUP.fullmatch(group.strip())
        if found is None:
            raise ConfigError(f"--cluster: {group.strip()!r} is no group of nodes; {FORM}")
        first, second, kind = found.groups()
        if kind.lower() == "cpu":
            nodes, gpus, gpu = int(first or 1) * int(second), 0, None
        else:
            nodes, gpus = int(first or 1), int(second)
            try:
                gpu = gpu_named(kind)
            except ConfigError as error:
                raise ConfigError(f"--cluster: {group.strip()}: {error}") from None
        if not nodes or (gpu and not gpus):
            raise ConfigError(f"--cluster: {group.strip()!r} has no nodes or no GPUs; {FORM}")
        host = host_gib or (gpu.host_gib * gpus if gpu else CPU_NODE_GIB)
        machines += [
            Machine(
                name=f"node-{len(machines) + index}",
                gpus=gpus,
                gpu=gpu,
                host_bytes=int(host * GIB),
                shm_bytes=int((shm_gib or SHM_SHARE * host) * GIB),
                measured=host_gib is not None,
            )
            for index in range(nodes)
        ]
    return machines


def this_machine(*, with_gpus: bool) -> list[Machine]:
    """This machine. `with_gpus`: ask the driver of its GPUs, which takes a moment."""
    kinds = _nvidia_gpus() if with_gpus else []
    shm = shutil.disk_usage(SHARED_MEMORY).total if SHARED_MEMORY.is_dir() else GIB
    return [
        Machine(
            name="this machine",
            gpus=len(kinds),
            gpu=kinds[0] if kinds else None,
            host_bytes=host_memory(),
            shm_bytes=shm,
            measured=True,
        )
    ]


def host_memory() -> int:
    """Bytes of this machine's memory, or the bound of its container."""
    limits = [psutil.virtual_memory().total]
    for file in CGROUP_LIMITS:
        try:
            limits.append(int(file.read_text()))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(limits)


def alike(machines: Iterable[Machine]) -> list[tuple[int, Machine]]:
    """Machines of one kind counted: (number, the first of them)."""
    counted: dict[tuple[object, ...], tuple[int, Machine]] = {}
    for machine in machines:
        kind = (machine.gpus, machine.gpu, machine.host_bytes, machine.shm_bytes, machine.labels)
        number, first = counted.get(kind, (0, machine))
        counted[kind] = (number + 1, first)
    return list(counted.values())


def _nvidia_gpus() -> list[Gpu | None]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return []
    if answer.returncode:
        return []
    rows = [line.rsplit(",", 1) for line in answer.stdout.splitlines() if "," in line]
    return [gpu_reported(name, int(float(mebibytes)) << 20) for name, mebibytes in rows]
