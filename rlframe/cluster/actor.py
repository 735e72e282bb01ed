"""Makes one Ray actor of a plain class, and waits for the calls of a run's start."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import ray

from rlframe.actors import logs
from rlframe.actors.activity import Doing, longest
from rlframe.actors.calls import wait
from rlframe.actors.replicas import Handle
from rlframe.actors.sockets import free_address
from rlframe.actors.table import entry_of
from rlframe.cluster import nodes
from rlframe.cluster.placement import Slot
from rlframe.errors import Stalled

if TYPE_CHECKING:
    from ray import ObjectRef

CONCURRENT_CALLS = 1000  # of an actor on an event loop; this only lifts Ray's bound
ACTIVITY = "activity"  # a concurrency group: its calls are answered while another call computes


def start_actor(
    slot: Slot,
    cls: type,
    arguments: tuple[Any, ...],
    handles: dict[str, Handle],
    named: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> Handle:
    """Makes an actor of a plain class, and adds the handle to `handles`.

    The class gets the actor's name first, then `arguments`, and `named` by name.
    """
    environment: dict[str, Any] = {"env_vars": slot.environment | logs.environment()}
    if slot.pip:
        environment["pip"] = slot.pip
    if slot.labels and slot.gang is None:  # a gang's bundles have the labels
        options["label_selector"] = slot.labels
    if slot.spread and slot.gang is None:
        options["scheduling_strategy"] = "SPREAD"
    remote: Any = ray.remote
    remote_class = remote(concurrency_groups={ACTIVITY: 1})(_process_of(cls))
    options |= {"name": slot.name, "num_cpus": slot.cpus, "num_gpus": slot.gpus, "runtime_env": environment}
    options["resources"] = slot.resources
    handles[slot.name] = remote_class.options(**options).remote(slot.name, *arguments, **named)
    return handles[slot.name]


def _process_of(cls: type) -> type:
    """The class with what every actor's process has: a file for its output, and an answer to `activity`."""

    class Process(cls):
        def __init__(self, name: str, *arguments: Any, **named: Any) -> None:
            logs.redirect(name)
            super().__init__(name, *arguments, **named)

        @ray.method(concurrency_group=ACTIVITY)
        def activity(self) -> Doing | None:
            """What the process computes at the moment, while it computes."""
            return longest()

    # Ray knows a class by its module and name, and shows them in errors.
    Process.__module__, Process.__qualname__, Process.__name__ = cls.__module__, cls.__qualname__, cls.__name__
    return Process


def node_of(handle: Handle) -> set[str]:
    """The id of the node on which an actor starts or runs; empty while it waits for room, or after its death."""
    entry = entry_of(handle)
    has_process = bool(entry.get("Pid")) and entry.get("State") != "DEAD"
    return {entry["Address"]["NodeID"]} if has_process else set()


def meeting_point(ranks: list[Handle]) -> ObjectRef:
    """The address at which torch.distributed lets ranks meet: host:port on rank 0's machine, free a moment ago.

    Rank 0 chooses the address once all ranks have started, so no rank waits at the address for a process that Ray has
    not started. A call that gets the reference as an argument runs once the address is known.
    """
    started = [rank.__ray_ready__.remote() for rank in ranks]
    return ranks[0].__ray_call__.remote(lambda *_: free_address(ray.util.get_node_ip_address()), *started)


def wait_for(calls: dict[str, ObjectRef], doing: str, deadline: float) -> list[Any]:
    """The results of calls of the start. Raises Stalled with the cluster's nodes, their resources and labels."""
    try:
        return wait(calls, doing, deadline - time.monotonic(), "cluster.start_timeout_s")
    except Stalled as error:
        raise Stalled(f"{error}; the cluster's nodes: {nodes.describe(nodes.living())}") from None
