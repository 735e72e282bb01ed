"""`TeacherPool`: token rewards from teachers: weight x (log p_teacher - log p_student) of every sampled token."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from ray.exceptions import RayActorError, RayTaskError

from rlframe.actors.pings import Silent
from rlframe.reward.failures import Failures
from rlframe.reward.pool import RewardWorkers
from rlframe.rollout.teacher_config import TeacherConfig
from rlframe.types import TEACHER, Completion, Prompt, ScoredGroup, Verdict

RESTARTED = "teacher/engines_replaced"


class TeacherPool:
    """Typed handle over the engines of all teachers, which `cluster/` starts and ends. For use in one event loop.

    On-policy distillation (Agarwal et al., 2023, arXiv:2306.13649, eq. 4, with the reverse KL): the policy gradient
    with log p_teacher - log p_student as the advantage of each sampled token descends KL(student || teacher).

    A call goes to the least busy engine of the task's teacher, and to another one after a death. A completion that a
    teacher cannot score gets a failed verdict, so it has no reward and is never trained on.
    """

    def __init__(
        self,
        teachers: Mapping[str, TeacherConfig],
        engines: Mapping[str, RewardWorkers],
        *,
        attempts: int,
        max_failed_share: float,
    ) -> None:
        """`engines`: of each teacher. `attempts`: calls for a completion that fails though engines live."""
        self.teachers = teachers
        self.engines = engines
        self.attempts = attempts
        self.failures = Failures(max_failed_share)

    @property
    def in_flight(self) -> dict[str, int]:
        """Calls at each engine, by name."""
        return {replica.name: replica.calls for engines in self.engines.values() for replica in engines.replicas}

    def metrics(self) -> dict[str, float]:
        """Engines that were started again, since the start."""
        return {RESTARTED: float(sum(engines.restarted for engines in self.engines.values()))}

    async def score(self, prompt: Prompt, completion: Completion) -> dict[str, Verdict]:
        """The verdict of the task's teacher by its name, "teacher/big"; empty for a task without a teacher.

        Its score is the sum of the log-ratios over the tokens. Raises RewardsFail when too many verdicts have failed,
        and ReplicasDown.
        """
        if (name := self.teacher_of(prompt.task)) is None:
            return {}
        verdict = await self._verdict(name, self.teachers[name].weight, prompt, completion)
        self.failures.note(f"{TEACHER}{name}", verdict)
        return {f"{TEACHER}{name}": verdict}

    def teacher_of(self, task: str) -> str | None:
        """The name of a task's teacher; None: it has none."""
        return next((name for name, teacher in self.teachers.items() if teacher.teaches(task)), None)

    async def _verdict(self, name: str, weight: float, prompt: Prompt, completion: Completion) -> Verdict:
        started, problem = time.perf_counter(), ""
        for _ in range(self.attempts if len(completion.token_ids) else 0):
            try:
                logprobs = await self.engines[name].call("logprobs", prompt.token_ids, completion.token_ids)
            except (RayActorError, Silent) as error:
                problem = f"its engines died or stopped: {error}"
                break
            except RayTaskError as error:
                problem = str(error.cause)
                continue
            if len(logprobs) == len(completion.token_ids) and np.isfinite(logprobs).all():
                return _scored(logprobs - completion.logprobs, weight, started)
            problem = f"{len(logprobs)} log-probabilities for {len(completion.token_ids)} tokens, or not all finite"
        if not len(completion.token_ids):
            return _scored(np.zeros(0, np.float32), weight, started)
        detail = f"teacher {name!r} on prompt {prompt.id!r}: {problem}"
        return Verdict(score=None, status="failed", seconds=time.perf_counter() - started, detail=detail)


def _scored(log_ratios: np.ndarray, weight: float, started: float) -> Verdict:
    return Verdict(
        score=float(log_ratios.sum(dtype=np.float64)),
        status="scored",
        seconds=time.perf_counter() - started,
        detail="",
        token_rewards=np.float32(weight) * log_ratios,
    )


def asked_today(verdicts: dict[str, Verdict], teacher: str | None) -> bool:
    """True for logged verdicts of a completion in which `teacher` spoke, and no other; None: no teacher spoke."""
    spoke = [name for name in verdicts if name.startswith(TEACHER)]
    return spoke == ([] if teacher is None else [f"{TEACHER}{teacher}"])


def taught(scored: ScoredGroup, verdicts: list[dict[str, Verdict]]) -> ScoredGroup:
    """The group with its teacher's verdicts. `verdicts`: [G] of all rewards and teachers, by name. Pure.

    A completion that the teacher could not score loses its reward: nothing trains on it.
    """
    rows = {name: [verdict[name] for verdict in verdicts] for name in verdicts[0] if name.startswith(TEACHER)}
    if not rows:
        return scored
    failed = [any(row[index].score is None for row in rows.values()) for index in range(len(verdicts))]
    return replace(
        scored,
        verdicts=scored.verdicts | rows,
        rewards=[None if lost else reward for lost, reward in zip(failed, scored.rewards, strict=True)],
        terms={
            name: replace(term, scores=[0.0 if lost else one for lost, one in zip(failed, term.scores, strict=True)])
            for name, term in scored.terms.items()
        },
    )
