"""Joins or makes a run's Ray cluster, starts the run's actors there, and ends them."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ray.exceptions import RayError

from rlframe.actors import logs
from rlframe.actors.failure import ActorFailed, describe
from rlframe.actors.replicas import Handle
from rlframe.cluster import nodes, ray_cluster, store
from rlframe.cluster.actors import Actors
from rlframe.cluster.learner_starter import LearnerStarter
from rlframe.cluster.nodes import Node
from rlframe.cluster.placement import RL, Role, cpu_demand, placement
from rlframe.cluster.reaper import reaper
from rlframe.cluster.starter import Starter
from rlframe.config.run import RunConfig
from rlframe.config.warnings import packing_warning
from rlframe.learner import selftest
from rlframe.record.directory import RunDir

if TYPE_CHECKING:
    from rlframe.config.keys import SharedKeys
    from rlframe.training import Packing

AFTER_ERROR_S = 20.0  # for rollout files that are being written

logger = logging.getLogger(__name__)


class JoinedCluster:
    """A Ray cluster that holds, or will hold, a run's actors of these roles."""

    def __init__(self, run: SharedKeys, roles: Iterable[Role], weights: int, namespace: str) -> None:
        """`weights`: bytes that the object store must hold."""
        self.run = run
        self.roles = roles
        self.weights = weights
        self.namespace = namespace
        self.handles: dict[str, Handle] = {}  # of the actors that were started
        self.starter: LearnerStarter | None = None

    def nodes(self) -> list[Node]:
        """The cluster's living nodes."""
        return nodes.living()

    def start(self, model_path: Path, warn: Callable[[str], None] = logger.warning) -> Actors:
        """Starts the actors of all roles.

        `warn` gets a line for each resource that a running cluster lacks, because the start then waits for more nodes,
        a line for an object store that is too small, for a model that computes no shared prefixes, and later for each
        engine that is replaced. Raises ConfigError for a model that the learner cannot compute right, and Stalled with
        the cluster's nodes and the names of the actors that did not start within `cluster.start_timeout_s`.
        """
        run, living = self.run, nodes.living()
        slots = placement(run, self.roles, nodes.most_gpus(living))
        packing: Packing = "shared"
        if slots.get("learner"):
            packing = selftest.choose_packing(model_path, run.learner, run.longest_sequence)
            if warning := packing_warning(run.learner.packing, packing):
                warn(warning)
        if run.cluster.address is None:
            small_store = store.local_problem(run.cluster.object_store_gib, self.weights)
        else:
            small_store = store.node_problem(self.weights, slots, living)
            for line in nodes.shortages(list(chain(*slots.values())), living):
                warn(f"{line}. The start waits {run.cluster.start_timeout_s:g} s (cluster.start_timeout_s) for more.")
        if small_store:
            warn(small_store)
        if isinstance(run, RunConfig):
            self.starter = Starter(run, model_path, self.namespace, packing, warn)
        else:
            self.starter = LearnerStarter(run, model_path, packing, warn)
        self.handles = self.starter.handles
        return self.starter.start(slots)

    def finish(self) -> None:
        """Waits until all rollout files are written. Raises RunFailed for a failed write, and Stalled."""
        if self.starter is not None:
            self.starter.finish(self.run.cluster.stall_timeout_s)

    def close(self) -> None:
        """Ends the event loop of calls to actors, then the actors. After an error files have a moment to be written."""
        try:
            if self.starter is not None:
                with suppress(Exception):
                    self.starter.finish(AFTER_ERROR_S)
                self.starter.background.close()
        finally:
            ray_cluster.end(self.handles)


@contextmanager
def join(run: SharedKeys, roles: Iterable[Role] = RL) -> Iterator[JoinedCluster]:
    """Joins or makes a Ray cluster for the actors of `roles`; at the end, ends all actors.

    Raises RunFailed where the cluster cannot be joined, and ActorFailed where a call inside the context ends with a Ray
    error.
    """
    roles = list(roles)
    weights = store.weight_bytes(run, roles)
    cluster = JoinedCluster(run, roles, weights, f"rlframe-{uuid.uuid4().hex[:8]}")
    cpus, store_bytes = cpu_demand(run, roles), store.local_bytes(run.cluster.object_store_gib, weights)
    reaping = reaper() if run.cluster.address is None else nullcontext({})
    with logs.kept_in(RunDir(Path(run.run_dir)).logs), reaping as mark:
        ray_cluster.connect(run.cluster, namespace=cluster.namespace, cpus=cpus, store_bytes=store_bytes, mark=mark)
        try:
            yield cluster
            cluster.finish()
        except RayError as error:
            raise ActorFailed(describe(error)) from None
        finally:
            cluster.close()


@contextmanager
def start(run: SharedKeys, model_path: Path, roles: Iterable[Role] = RL) -> Iterator[Actors]:
    """The actors of `roles` on the cluster that the config names: `join`, then `JoinedCluster.start`."""
    with join(run, roles) as cluster:
        yield cluster.start(model_path)
