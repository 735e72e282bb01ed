"""Keys that would make a run fit: single changes and pairs of them, each checked by planning again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from rlframe.errors import ConfigError
from rlframe.plan.plan import Plan, make_plan

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig

MOST_RANKS = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """Changes of keys under which the run fits, or its former problems are gone."""

    changes: dict[str, Any]  # dotted key -> value
    gpus: int  # that the run asks for then
    fits: bool  # False: only GPUs are missing

    def __str__(self) -> str:
        return " ".join(f"{key}={_written(value)}" for key, value in self.changes.items())


def find_remedy(plan: Plan) -> Remedy | None:
    """The first of few, cheap changes that makes the run fit; then one that needs more GPUs than there are; or None."""
    if plan.fits or {problem.where for problem in plan.problems} == {"GPUs"}:
        return None
    single = [changes for changes in _candidates(plan.run) if _allowed(plan.run, changes)]
    pairs = [one | other for one, other in combinations(single, 2) if not one.keys() & other.keys()]
    beyond: Remedy | None = None
    for changes in [*single, *pairs]:
        found = _try(plan, changes)
        if found is None:
            continue
        if found.fits:
            return found
        if beyond is None or found.gpus < beyond.gpus:
            beyond = found
    return beyond


def with_keys(run: RunConfig, changes: dict[str, Any]) -> RunConfig:
    """The same run with other values of dotted keys, unchecked."""
    changed: Any = run
    for key, value in changes.items():
        changed = _with_key(changed, key.split("."), value)
    return changed


def _with_key(settings: BaseModel, path: Sequence[str], value: Any) -> Any:
    first, *rest = path
    return settings.model_copy(update={first: _with_key(getattr(settings, first), rest, value) if rest else value})


def _try(plan: Plan, changes: dict[str, Any]) -> Remedy | None:
    try:
        again = make_plan(with_keys(plan.run, changes), plan.shapes, plan.machines, plan.teacher_shapes)
    except ConfigError:
        return None
    left = {problem.where for problem in again.problems}
    if left - {"GPUs"} or not _allowed(plan.run, changes):
        return None
    return Remedy(changes=changes, gpus=again.layout.gpus, fits=not left)


def _allowed(run: RunConfig, changes: dict[str, Any]) -> bool:
    """True if the checks of a config accept the changed run."""
    changed = with_keys(run, changes)
    try:
        type(run).model_validate(changed.model_dump())
    except (ValidationError, ValueError):
        return False
    return True


def _candidates(run: RunConfig) -> Iterator[dict[str, Any]]:
    """Changes of a kind from the cheapest on; a change that costs quality or machines comes last."""
    learner, rollout = run.learner, run.rollout
    if not learner.gradient_checkpointing:
        yield {"learner.gradient_checkpointing": True}
    if run.kl and not run.kl.offload and learner.gpus:
        yield {"kl.offload": True}
    least = -(-run.longest_sequence // learner.sequence_parallel)
    for tokens in (learner.micro_batch_tokens // 2, learner.micro_batch_tokens // 4, least):
        if least <= tokens < learner.micro_batch_tokens:
            yield {"learner.micro_batch_tokens": tokens}
    if run.weights.backend == "object_store" and rollout.gpus and learner.gpus:
        yield {"weights.backend": "ipc" if run.placement == "colocated" else "nccl"}
    if learner.gpus and not learner.offload_optimizer:
        yield {"learner.offload_optimizer": True}
        yield {"learner.offload_optimizer": True, "learner.offload_parameters": True}
    elif learner.gpus and not learner.offload_parameters:
        yield {"learner.offload_parameters": True}
    yield from _engine_sizes(run)
    for size in (2, 4, 8):
        if learner.ranks % size == 0 and size > learner.sequence_parallel:
            tokens = max(-(-run.longest_sequence // size), learner.micro_batch_tokens // size)
            yield {"learner.sequence_parallel": size, "learner.micro_batch_tokens": tokens}
    for size in (2, 4, 8, 16):
        if size > (learner.expert_parallel or 1):
            yield {"learner.expert_parallel": size}
    for max_tokens in (rollout.max_tokens // 2, rollout.max_tokens // 4):
        if max_tokens >= 64:
            yield {"rollout.max_tokens": max_tokens}
    ranks = 2 * learner.ranks
    while ranks <= MOST_RANKS:
        if run.placement == "colocated":
            yield {
                "learner.ranks": ranks,
                "rollout.engines": run.rollout.engines.model_copy(
                    update={"min": ranks // max(1, rollout.gpus), "max": ranks // max(1, rollout.gpus)}
                ),
            }
        else:
            yield {"learner.ranks": ranks}
        ranks *= 2


def _engine_sizes(run: RunConfig) -> Iterator[dict[str, Any]]:
    rollout = run.rollout
    if rollout.gpus and rollout.gpu_memory_share < 0.9 and run.placement == "separate":
        yield {"rollout.gpu_memory_share": 0.9}
    if rollout.gpus and rollout.data_parallel == 1 and run.placement == "separate":
        for factor in (2, 4, 8, 16):
            gpus = rollout.gpus * factor
            key = (
                {} if rollout.tensor_parallel is None else {"rollout.tensor_parallel": rollout.tensor_parallel * factor}
            )
            yield {"rollout.gpus": gpus} | key
    if not rollout.gpus:
        for share in (2, 4):
            if rollout.kv_cache_gib // share:
                yield {"rollout.kv_cache_gib": rollout.kv_cache_gib // share}


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
