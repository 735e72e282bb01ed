"""Joins or makes a run's Ray cluster, starts the run's actors there, and ends them."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ray.exceptions import RayError

from rlframe.actors.failure import ActorFailed, describe
from rlframe.actors.replicas import Handle
from rlframe.cluster import nodes, ray_cluster
from rlframe.cluster.placement import RL, Role, Slot, cpu_demand, placement
from rlframe.cluster.starter import Actors, Starter
from rlframe.learner import selftest

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig
    from rlframe.training import Packing

logger = logging.getLogger(__name__)


class JoinedCluster:
    """A Ray cluster that holds, or will hold, a run's actors in these slots."""

    def __init__(self, run: RunConfig, slots: dict[Role, list[Slot]], namespace: str) -> None:
        self.run = run
        self.slots = slots
        self.namespace = namespace
        self.handles: dict[str, Handle] = {}  # of the actors that were started

    def start(self, model_path: Path, warn: Callable[[str], None] = logger.warning) -> Actors:
        """Starts an actor in every slot.

        `warn` gets a line for what the nodes of a running cluster lack: the start waits for further nodes.
        Raises ConfigError for a model that the learner cannot compute right, and Stalled with the names of the actors
        that did not start within `cluster.start_timeout_s` and the cluster's nodes.
        """
        run, slots = self.run, self.slots
        packing: Packing = "shared"
        if slots.get("learner"):
            packing = selftest.choose_packing(model_path, run.learner, run.longest_sequence)
        if run.cluster.address is not None:
            for line in nodes.shortages(list(chain(*slots.values())), nodes.living()):
                warn(f"{line}. The start waits {run.cluster.start_timeout_s:g} s (cluster.start_timeout_s) for more.")
        starter = Starter(run, model_path, self.namespace, packing)
        self.handles = starter.handles
        return starter.start(slots)


@contextmanager
def join(run: RunConfig, roles: Iterable[Role] = RL) -> Iterator[JoinedCluster]:
    """Joins or makes a Ray cluster for the actors of `roles`; at the end, ends all actors.

    Raises RunFailed where the cluster cannot be joined, and ActorFailed where a call inside the context ends with a Ray
    error.
    """
    cluster = JoinedCluster(run, placement(run, roles), f"rlframe-{uuid.uuid4().hex[:8]}")
    ray_cluster.connect(run.cluster, namespace=cluster.namespace, cpus=cpu_demand(cluster.slots))
    try:
        yield cluster
    except RayError as error:
        raise ActorFailed(describe(error)) from None
    finally:
        ray_cluster.end(cluster.handles)


@contextmanager
def start(run: RunConfig, model_path: Path, roles: Iterable[Role] = RL) -> Iterator[Actors]:
    """The actors of `roles` on the cluster that the config names: `join`, then `JoinedCluster.start`."""
    with join(run, roles) as cluster:
        yield cluster.start(model_path)
