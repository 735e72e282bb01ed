"""Joins or makes a run's Ray cluster, starts the run's actors there, and ends them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ray.exceptions import RayError

from rlframe.actors.failure import ActorFailed, describe
from rlframe.cluster import ray_cluster
from rlframe.cluster.placement import RL, Role, cpu_demand, placement
from rlframe.cluster.starter import Actors, Starter
from rlframe.learner import selftest

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig


@contextmanager
def start(run: RunConfig, model_path: Path, roles: Iterable[Role] = RL) -> Iterator[Actors]:
    """Joins or makes the Ray cluster and starts the actors of `roles`; at the end, ends all actors.

    Raises ConfigError for a model that the learner cannot compute right, Stalled with the names of the actors that did
    not start within `cluster.start_timeout_s` and the cluster's resources, and ActorFailed where a call inside the
    context ends with a Ray error.
    """
    namespace = f"rlframe-{uuid.uuid4().hex[:8]}"
    slots = placement(run, roles)
    packing = selftest.choose_packing(model_path, run.learner, run.longest_sequence) if slots.get("learner") else None
    ray_cluster.connect(run.cluster, namespace=namespace, cpus=cpu_demand(slots))
    starter = Starter(run, model_path, namespace, packing or "shared")
    try:
        yield starter.start(slots)
    except RayError as error:
        raise ActorFailed(describe(error)) from None
    finally:
        ray_cluster.end(starter.handles)
