"""Combinations of settings that cannot work under `placement`: colocated or separate."""

from __future__ import annotations

from collections.abc import Callable

from rlframe.config.keys import RunKeys


def turns_leave_no_stale_tokens(run: RunKeys) -> str | None:
    if run.placement == "colocated" and run.max_staleness:
        return (
            "max_staleness: with placement=colocated engines sample nothing while the learner computes, so no step can "
            f"be {run.max_staleness} ahead; use 0, or placement=separate"
        )


def both_sides_of_a_colocated_run_have_gpus(run: RunKeys) -> str | None:
    gpus = {"rollout.gpus": run.rollout.gpus, "learner.gpus": run.learner.gpus}
    if run.placement == "colocated" and any(gpus.values()) and not all(gpus.values()):
        side, other = sorted(gpus, key=gpus.__getitem__)
        return (
            f"{side}: placement=colocated shares GPUs, but {side}=0 beside {other}={gpus[other]}; set both, or "
            "placement=separate"
        )


def every_gpu_of_a_colocated_engine_has_a_rank(run: RunKeys) -> str | None:
    engines, gpus, ranks = run.rollout.engines.max, run.rollout.gpus, run.learner.ranks
    if run.placement == "colocated" and gpus and run.learner.gpus and ranks != engines * gpus:
        return (
            f"learner.ranks: placement=colocated has a rank on every GPU of the engines, which are rollout.engines="
            f"{engines} x rollout.gpus={gpus} = {engines * gpus}, not {ranks}; set learner.ranks={engines * gpus}"
        )


def colocated_engines_are_a_fixed_number(run: RunKeys) -> str | None:
    if run.placement == "colocated" and not run.rollout.engines.fixed:
        return (
            f"rollout.engines: {run.rollout.engines} lets engines come and go, and with placement=colocated every "
            f"engine stays on the GPUs of its ranks; use rollout.engines={run.rollout.engines.max}, or "
            "placement=separate"
        )


def colocated_engines_are_on_one_machine(run: RunKeys) -> str | None:
    if run.placement == "colocated" and run.rollout.gpus and run.rollout.executor == "ray":
        return (
            "rollout.executor: ray would reserve GPUs that the ranks of a colocated run have reserved; use mp or auto, "
            "with engines of one machine"
        )


def colocated_engines_agree_on_the_labels_of_their_node(run: RunKeys) -> str | None:
    rollout, learner = run.rollout.labels, run.learner.labels
    contrary = {label: value for label, value in rollout.items() if learner.get(label, value) != value}
    if run.placement == "colocated" and run.rollout.gpus and contrary:
        return (
            f"rollout.labels: a colocated engine is on the node of its ranks, which cannot have both {contrary} and "
            f"learner.labels={learner}; use the same labels, or placement=separate"
        )


def nccl_has_a_gpu_for_every_member(run: RunKeys) -> str | None:
    if run.placement == "colocated" and run.rollout.gpus and run.weights.backend == "nccl":
        return (
            "weights.backend: two members of a NCCL group cannot be on the same GPU, as rank and engine are with "
            "placement=colocated; use ipc, which hands over GPU memory in place, or object_store"
        )


def ipc_has_the_same_gpus_on_both_sides(run: RunKeys) -> str | None:
    if run.placement == "separate" and run.rollout.gpus and run.weights.backend == "ipc":
        return (
            "weights.backend: ipc hands over memory of a GPU to another process on this GPU, and with "
            "placement=separate no engine shares a GPU with a rank; use placement=colocated, or nccl or object_store"
        )


PLACEMENT_CHECKS: list[Callable[[RunKeys], str | None]] = [
    turns_leave_no_stale_tokens,
    both_sides_of_a_colocated_run_have_gpus,
    colocated_engines_are_a_fixed_number,
    every_gpu_of_a_colocated_engine_has_a_rank,
    colocated_engines_are_on_one_machine,
    colocated_engines_agree_on_the_labels_of_their_node,
    nccl_has_a_gpu_for_every_member,
    ipc_has_the_same_gpus_on_both_sides,
]
