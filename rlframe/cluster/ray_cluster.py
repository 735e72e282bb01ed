"""Joins or makes the Ray cluster of a run, and ends the run's actors and processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil
import ray
from ray import cloudpickle

from rlframe.actors.replicas import Handle
from rlframe.schema import user_modules

if TYPE_CHECKING:
    from rlframe.config.train import ClusterConfig

GIB = 1 << 30
SHUTDOWN_S = 20.0  # for actors to end their own processes; then the actors are killed


def connect(config: ClusterConfig, *, namespace: str, cpus: int) -> None:
    """Joins the cluster at `cluster.address`; without an address makes a local cluster with `cpus`."""
    settings: dict[str, Any] = {"namespace": namespace, "log_to_driver": False, "logging_level": "ERROR"}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's own advice against Ray's warning
    if config.address is None:
        # On a laptop actors share the cores: generation and learning take turns, so each may use all cores.
        with _own_process_group():
            ray.init(
                "local",
                num_cpus=cpus,
                object_store_memory=int(config.object_store_gib * GIB),
                include_dashboard=False,
                **settings,
            )
    else:
        ray.init(config.address, **settings)
    send_user_modules()


def send_user_modules() -> None:
    """Lets classes from a user's own files travel by value: a worker may lack the file and its folder."""
    for name in user_modules:
        cloudpickle.register_pickle_by_value(sys.modules[name])


def end(handles: dict[str, Handle]) -> None:
    """Lets actors end their own processes, ends the actors, and kills the rest of this driver's offspring."""
    handles = dict(handles)  # another thread may still add an engine
    offspring = psutil.Process().children(recursive=True)
    try:
        goodbyes = [handle.shutdown.remote() for name, handle in handles.items() if name.startswith("rollout")]
        goodbyes += [handle.close.remote() for name, handle in handles.items() if name.startswith("reward")]
        if goodbyes:
            ray.wait(goodbyes, num_returns=len(goodbyes), timeout=SHUTDOWN_S)
        for handle in handles.values():
            ray.kill(handle)
    finally:
        ray.shutdown()
        _, alive = psutil.wait_procs(offspring, timeout=5)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()


@contextmanager
def _own_process_group() -> Iterator[None]:
    """Processes that start inside are not in the driver's process group.

    Ctrl-C, `timeout` and Slurm signal a whole group, and Ray's processes would die while the driver still saves a
    checkpoint. In their own group Ray's processes stay until the driver ends.
    """
    home = os.getpgrp()
    anchor = subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=0)  # keeps the new group in existence
    try:
        with suppress(PermissionError):  # the leader of a session cannot leave its group
            os.setpgid(0, anchor.pid)
        yield
    finally:
        if os.getpgrp() != home:
            os.setpgid(0, home)
        anchor.communicate()
