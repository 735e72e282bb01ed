"""Combinations of settings that the run's Ray cluster cannot meet: its address, labels of its nodes, its variables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlframe.config.keys import RunKeys, SharedKeys
from rlframe.record.secrets import HOW
from rlframe.record.text import SECRET_KEY

PLACED_BY = ("labels", "resources", "topology")  # keys of ranks
STOP_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"  # of Ray's jobs


def address_is_of_ray_itself(run: SharedKeys) -> str | None:
    address = run.cluster.address
    if address is not None and "://" in address:
        return (
            f"cluster.address: {address} is an address of Ray's jobs API or client, and a run joins the cluster as a "
            "node's own process; set host:port of the head (6379 by default) or auto on a node of the cluster, or "
            "submit the run: rlframe submit"
        )


def variables_hold_no_secret(run: SharedKeys) -> str | None:
    for name in run.cluster.env_vars:
        if name in run.secrets or SECRET_KEY.search(name):
            return (
                f"cluster.env_vars.{name}: everybody who may ask the cluster for its jobs can read these variables, "
                f"and this one is a secret by its name; take it away, add its name to secrets, and {HOW}"
            )
        if name == STOP_VARIABLE:
            return f"cluster.env_vars.{name}: cluster.stop_timeout_s sets it"


def labels_have_a_running_cluster(run: RunKeys) -> str | None:
    asked = {
        "rollout.labels": run.rollout.labels,
        "learner.labels": run.learner.labels,
        "reward.labels": run.reward.labels,
    } | {
        f"reward.terms.{name}.actors.labels": term.actors and term.actors.labels
        for name, term in run.reward.terms.items()
    }
    asked |= {
        "rollout.resources": run.rollout.resources,
        "learner.resources": run.learner.resources,
        "reward.resources": run.reward.resources,
        "learner.topology": run.learner.topology,
    }
    return _without_a_cluster(run, asked)


def ranks_labels_have_a_running_cluster(run: SharedKeys) -> str | None:
    return _without_a_cluster(run, {f"learner.{key}": getattr(run.learner, key) for key in PLACED_BY})


def _without_a_cluster(run: SharedKeys, asked: dict[str, Any]) -> str | None:
    """The problem of a run on this machine that asks for nodes by their labels; `asked`: key -> value."""
    if run.cluster.address is None and (keys := [key for key, labels in asked.items() if labels]):
        return (
            f"{keys[0]}: {asked[keys[0]]} is on no node, since cluster.address=null starts a cluster on this machine "
            "alone; use null, or cluster=existing"
        )


def every_episode_worker_has_an_engine(run: RunKeys) -> str | None:
    workers, engines = run.rollout.episode_workers, run.rollout.engines.min
    if workers is not None and workers > engines:
        return (
            f"rollout.episode_workers: {workers} cannot share rollout.engines={run.rollout.engines}, as each needs an "
            f"engine; use at most {engines}, or null"
        )


ADDRESS_CHECKS: list[Callable[[SharedKeys], str | None]] = [address_is_of_ray_itself, variables_hold_no_secret]
CLUSTER_CHECKS: list[Callable[[RunKeys], str | None]] = [
    *ADDRESS_CHECKS,
    labels_have_a_running_cluster,
    every_episode_worker_has_an_engine,
]
