"""Joins or makes the Ray cluster of a run, and ends the run's actors and processes."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import psutil
import ray
from ray import cloudpickle
from ray._private import ray_constants
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray._private.worker import global_worker
from ray._raylet import AuthenticationTokenLoader, Config  # pyright: ignore[reportAttributeAccessIssue]

from rlframe.actors.replicas import Handle
from rlframe.actors.table import is_alive
from rlframe.cluster import existing
from rlframe.errors import RunFailed
from rlframe.schema import user_modules

if TYPE_CHECKING:
    from rlframe.config.train import ClusterConfig

LOOPBACK = "127.0.0.1"
SHUTDOWN_S = 20.0  # for actors to end their own processes; then the actors are killed


def connect(
    config: ClusterConfig,
    *,
    namespace: str,
    cpus: int,
    store_bytes: int,
    mark: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Joins the cluster at `cluster.address`; without an address makes a local cluster of this size.

    `mark`: variables of the environment of a local cluster's processes, by which the reaper finds them. Raises
    RunFailed where the cluster cannot be joined.
    """
    settings: dict[str, Any] = {"namespace": namespace, "log_to_driver": False, "logging_level": "ERROR"}
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's own advice against Ray's warning
    if config.address is None:
        # On a laptop actors share the cores: generation and learning take turns, so each may use all cores.
        variables = config.env_vars | local_environment() | dict(mark)
        with _own_process_group(), _environment(variables), _loopback_node():
            _read_environment()  # Ray may remember a cluster that was joined before
            ray.init(
                "local",
                num_cpus=cpus,
                object_store_memory=store_bytes,
                include_dashboard=False,
                **settings,
            )
    else:
        _read_environment()
        if config.env_vars and RAY_JOB_CONFIG_JSON_ENV_VAR not in os.environ:  # a job has them already
            settings["runtime_env"] = {"env_vars": config.env_vars}
        existing.join(config.address, allow_open=config.allow_open, **settings)
    send_user_modules()


def local_environment() -> dict[str, str]:
    """Variables of all processes of a local cluster, whose sockets are on the loopback interface.

    Every run has a new token, because a process with the token can run code in the cluster. Ray alone would keep the
    same token for all runs, in a file that all users of this machine may read.
    """
    addresses = psutil.net_if_addrs().items()
    loopback = next((name for name, found in addresses if LOOPBACK in [address.address for address in found]), None)
    if loopback is None:
        raise RunFailed(
            f"cluster.address=null: a local cluster needs {LOOPBACK}, and no network interface of this machine has it. "
            "Run `ip link set lo up`, or set cluster.address to a Ray cluster."
        )
    return {
        "RAY_AUTH_MODE": "token",  # also where the user's shell switches tokens off
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0",
        "GLOO_SOCKET_IFNAME": loopback,
        "NCCL_SOCKET_IFNAME": loopback,
        "VLLM_HOST_IP": LOOPBACK,
        # Ray would start spare workers, which actors with an environment of their own cannot use, before the actors.
        "RAY_prestart_worker_first_driver": "0",
    }


def _read_environment() -> None:
    """Lets Ray in this process read anew whether it needs a token, and the token."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Sets environment variables of the processes that start inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextmanager
def _loopback_node() -> Iterator[None]:
    """A node that starts inside has the address 127.0.0.1, which `ray.init` accepts as an argument on laptops only.

    Ray does so on macOS and Windows. Ray read the environment variable for it when this process imported Ray, so the
    constant is changed instead.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _is_local() -> bool:
    """True if this process has made the cluster."""
    node: Any = global_worker.node
    return node is not None and node.is_head()


def send_user_modules() -> None:
    """Lets classes from a user's own files travel by value: a worker may lack the file and its folder."""
    for name in user_modules:
        cloudpickle.register_pickle_by_value(sys.modules[name])


def end(handles: dict[str, Handle]) -> None:
    """Lets actors end their own processes, ends the actors, and kills what is left of a local cluster.

    A cluster that was joined goes on.
    """
    handles = dict(handles)  # another thread may still add an engine
    offspring = psutil.Process().children(recursive=True) if _is_local() else []
    try:
        alive = {name: handle for name, handle in handles.items() if is_alive(handle)}
        goodbyes = [handle.shutdown.remote() for name, handle in alive.items() if name.startswith("rollout")]
        goodbyes += [handle.close.remote() for name, handle in alive.items() if name.startswith("reward")]
        if goodbyes:
            ray.wait(goodbyes, num_returns=len(goodbyes), timeout=SHUTDOWN_S)
        for handle in handles.values():
            ray.kill(handle)
    finally:
        ray.shutdown()
        _read_environment()  # the next cluster has another token
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
    # A group ends with its last process, so each of the two groups gets a process that waits until stdin is closed.
    anchors = [subprocess.Popen(["cat"], stdin=subprocess.PIPE, process_group=group) for group in (home, 0)]
    try:
        with suppress(PermissionError):  # the leader of a session cannot leave its group
            os.setpgid(0, anchors[1].pid)
        yield
    finally:
        if os.getpgrp() != home:
            os.setpgid(0, home)
        for anchor in anchors:
            anchor.communicate()
