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
from rlframe.cluster import nodes, ray_cluster
from rlframe.cluster.placement import RL, Role, cpu_demand, placement
from rlframe.cluster.starter import Actors, Starter
from rlframe.learner import selftest

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig

logger = logging.getLogger(__name__)


@contextmanager
def start(
    run: RunConfig, model_path: Path, roles: Iterable[Role] = RL, warn: Callable[[str], None] = logger.warning
) -> Iterator[Actors]:
    """Joins or makes the Ray cluster and starts the actors of `roles`; at the end, ends all actors.

    `warn` gets a line for actors that no node of a running cluster can hold: the start waits for such a node. Raises
    ConfigError for a model that the learner cannot compute right, RunFailed where the cluster cannot be joined, Stalled
    with the names of the actors that did not start within `cluster.start_timeout_s` and the cluster's nodes, and
    ActorFailed where a call inside the context ends with a Ray error.
    """
    namespace = f"rlframe-{uuid.uuid4().hex[:8]}"
    slots = placement(run, roles)
    packing = selftest.choose_packing(model_path, run.learner, run.longest_sequence) if slots.get("learner") else None
    ray_cluster.connect(run.cluster, namespace=namespace, cpus=cpu_demand(slots))
    if run.cluster.address is not None:
        for line in nodes.homeless(chain(*slots.values()), nodes.living()):
            warn(f"{line}; the start waits for one for {run.cluster.start_timeout_s:g} s (cluster.start_timeout_s)")
    starter = Starter(run, model_path, namespace, packing or "shared")
    try:
        yield starter.start(slots)
    except RayError as error:
        raise ActorFailed(describe(error)) from None
    finally:
        ray_cluster.end(starter.handles)
