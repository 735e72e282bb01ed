"""Starts the engines of teachers, and makes each episode worker's pool of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlframe.actors.replicas import Handle, Replica, Replicas
from rlframe.cluster.actor import CONCURRENT_CALLS, start_actor
from rlframe.cluster.gang import Gang
from rlframe.cluster.placement import Slot, teacher_kind
from rlframe.model import base_model
from rlframe.reward.pool import RewardWorkers
from rlframe.rollout.arguments import EngineSettings
from rlframe.rollout.teachers import TeacherPool

if TYPE_CHECKING:
    from rlframe.config.run import RunConfig

TEACHERS_IN_FLIGHT = 64  # calls that wait or run at an engine, of all episode workers together


def start_teachers(run: RunConfig, slots: list[Slot], handles: dict[str, Handle]) -> dict[str, dict[str, Handle]]:
    """Starts every teacher's engines -> by teacher, by the actor's name. `handles` gets each actor.

    Ray starts a dead engine again, any number of times: its weights are the files that it began with.
    """
    if not slots:
        return {}
    from rlframe.rollout.teacher import TeacherEngine

    started: dict[str, dict[str, Handle]] = {}
    for name, teacher in run.teachers.items():
        model_path, config = base_model.prepare(teacher.path), teacher.engine(run.rollout)
        own = [slot for slot in slots if slot.kind == teacher_kind(name)]
        started[name] = {}
        for slot in own:
            settings = EngineSettings(
                max_model_len=run.longest_sequence + 1,  # vLLM samples a token behind those that it is given
                backend="object_store",
                head_dtype=run.learner.head_dtype,
                empty=False,
                lora=None,
                shares_gpus=False,
                executor="ray" if slot.workers else "mp",
                teaches=True,
            )
            options: dict[str, Any] = {"max_restarts": -1, "max_task_retries": 0, "max_concurrency": CONCURRENT_CALLS}
            options |= Gang([slot] if slot.workers else []).options(slot)
            arguments = (config, model_path, settings)
            started[name][slot.name] = start_actor(slot, TeacherEngine, arguments, handles, **options)
    return started


def teacher_pool(
    run: RunConfig, started: Mapping[str, Mapping[str, Handle]], member: int = 0, members: int = 1
) -> TeacherPool:
    """The pool of one of `members` episode workers, which share the engines."""
    engines = {}
    for name, handles in started.items():
        replicas = [Replica(name=engine, handle=handle) for engine, handle in handles.items()]
        first = member * len(replicas) // members
        engines[name] = RewardWorkers(
            [name],
            Replicas("engine", replicas[first:] + replicas[:first]),
            max_in_flight=max(1, TEACHERS_IN_FLIGHT // members),
            max_deaths=run.rollout.attempts,
            silence_s=run.rollout.silence_s,
            restart_s=run.cluster.start_timeout_s,
        )
    return TeacherPool(
        run.teachers, engines, attempts=run.reward.attempts, max_failed_share=run.reward.max_failed_share
    )
