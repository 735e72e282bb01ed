"""The figures of a plan as JSON: bytes and seconds."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from rlframe.plan.plan import Plan
    from rlframe.plan.remedies import Remedy


def figures(plan: Plan, remedy: Remedy | None) -> dict[str, Any]:
    """Every figure of the report."""
    shapes, rank, engine, times = plan.shapes, plan.rank, plan.engine, plan.times
    return {
        "fits": plan.fits,
        "problems": [asdict(problem) for problem in plan.problems],
        "remedy": remedy
        and {
            "changes": {key: _plain(value) for key, value in remedy.changes.items()},
            "gpus": remedy.gpus,
            "fits": remedy.fits,
        },
        "model": {
            "kind": shapes.kind,
            "parameters": shapes.parameters,
            "active_parameters": shapes.active_parameters,
        },
        "machines": [
            {
                "name": node.machine.name,
                "gpus": node.machine.gpus,
                "gpu": node.machine.gpu and node.machine.gpu.name,
                "actors": [slot.name for slot in node.actors],
                "engine_workers": node.workers,
                "host_kept_bytes": memory.kept,
                "host_peak_bytes": memory.peak,
                "shm_bytes": memory.shm,
            }
            for node, memory in plan.hosts
        ],
        "unplaced": plan.layout.unplaced,
        "gpus": plan.layout.gpus,
        "rank": {
            "kept_bytes": rank.kept,
            "instant_bytes": rank.instants,
            "worst_instant": rank.worst_instant,
            "peak_bytes": rank.peak_bytes,
            "host_bytes": rank.host,
            "checkpoint_bytes": rank.checkpoint,
        },
        "engine": {
            "kept_bytes": engine.kept,
            "batch_bytes": engine.passing,
            "cache_bytes": engine.cache,
            "cache_token_bytes": engine.token_bytes,
            "cached_tokens": engine.cached_tokens,
            "slots": engine.slots,
            "longest_sequences": engine.sequences(0),
        },
        "synced_bytes": plan.synced_bytes,
        "step": times
        and asdict(times)
        | {"engines_idle": times.engines_idle, "learner_idle": times.learner_idle, "completion_steps": times.age},
        "gpu_hours": plan.gpu_hours,
    }


def _plain(value: Any) -> Any:
    return value.model_dump() if isinstance(value, BaseModel) else value
