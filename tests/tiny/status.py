"""Statuses of runs, with a value for every field."""

from __future__ import annotations

from typing import Any

from rlframe.record.status import ActorStatus, EngineStatus, Status


def make_status(**fields: Any) -> Status:
    defaults: dict[str, Any] = {
        "state": "running",
        "reason": "",
        "step": 6,
        "steps": 100,
        "host": "node-7",
        "pid": 123,
        "generation": 2,
        "started": 1000.0,
        "time": 2000.0,
        "doing": None,
        "waits": [],
        "engines": [],
        "actors": [],
        "metrics": {},
    }
    return Status(**defaults | fields)


def make_actor(name: str, doing: str | None = None, seconds: float = 0.0, silent_s: float = 0.0) -> ActorStatus:
    return ActorStatus(name=name, doing=doing, seconds=seconds, silent_s=silent_s)


def make_engine(
    name: str, completions: int, *, silent_s: float = 0.0, tokens_per_s: float = 0.0, loading_s: float | None = None
) -> EngineStatus:
    return EngineStatus(
        name=name,
        completions=completions,
        tokens_per_s=tokens_per_s,
        silent_s=silent_s,
        loading_s=loading_s,
        version=6,
    )
