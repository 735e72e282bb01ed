"""The pool of teachers, over engines that tell made-up log-probabilities."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from ray.exceptions import RayActorError

from rlframe.actors.in_process import InProcess
from rlframe.actors.replicas import Replica, Replicas
from rlframe.reward.failures import RewardsFail
from rlframe.reward.pool import RewardWorkers
from rlframe.rollout.teacher_config import TeacherConfig, check_tasks
from rlframe.rollout.teachers import TeacherPool, asked_today, taught
from rlframe.types import Prompt, RewardTerm, Verdict
from tests.tiny.groups import make_completion, make_group

PROMPT = Prompt(id="p", messages=[], token_ids=[1, 2], reference="", task="math")


class MadeUpTeacher:
    """Every token has the same log-probability; `error` is raised instead."""

    def __init__(self, logprob: float = -1.0, error: Exception | None = None) -> None:
        self.logprob, self.error = logprob, error
        self.calls: list[list[int]] = []

    async def logprobs(self, prompt: list[int], completion: np.ndarray) -> np.ndarray:
        self.calls.append([*prompt, *completion.tolist()])
        if self.error:
            raise self.error
        return np.full(len(completion), self.logprob, np.float32)

    async def facts(self) -> dict[str, float]:
        return {}


def pool(*engines: MadeUpTeacher, tasks: list[str] | None = None, max_deaths: int = 2) -> TeacherPool:
    handles: list[Any] = [InProcess(engine) for engine in engines]
    replicas = Replicas("engine", [Replica(name=f"teacher-big-{n}", handle=each) for n, each in enumerate(handles)])
    teacher = TeacherConfig.model_construct(path="", weight=0.5, engines=len(engines), tasks=tasks)
    workers = RewardWorkers(["big"], replicas, max_in_flight=8, max_deaths=max_deaths, restart_s=1.0)
    return TeacherPool({"big": teacher}, {"big": workers}, attempts=2, max_failed_share=0.5)


def score(teachers: TeacherPool, tokens: int = 3) -> dict[str, Verdict]:
    return asyncio.run(teachers.score(PROMPT, make_completion(tokens)))


def test_a_token_s_reward_is_the_weighted_log_ratio_of_teacher_and_student() -> None:
    engine = MadeUpTeacher(-1.5)
    verdict = score(pool(engine))["teacher/big"]  # the student's log-probabilities are -1, -2 and -3
    assert engine.calls == [[1, 2, 100, 101, 102]]
    assert verdict.score == pytest.approx(-0.5 + 0.5 + 1.5)
    assert verdict.token_rewards is not None
    assert verdict.token_rewards.tolist() == pytest.approx([-0.25, 0.25, 0.75])


def test_a_task_without_a_teacher_and_an_empty_completion_ask_no_engine() -> None:
    engine = MadeUpTeacher()
    assert score(pool(engine, tasks=["code"])) == {}
    empty = score(pool(engine), tokens=0)["teacher/big"]
    assert (empty.status, empty.score, engine.calls) == ("scored", 0.0, [])


def test_another_engine_answers_in_the_place_of_a_dead_one() -> None:
    dead, alive = MadeUpTeacher(error=RayActorError()), MadeUpTeacher()
    teachers = pool(dead, alive)
    assert score(teachers)["teacher/big"].status == "scored"
    assert (len(dead.calls), len(alive.calls)) == (1, 1)
    assert teachers.metrics() == {"teacher/engines_replaced": 1.0}


@pytest.mark.parametrize("engine", [MadeUpTeacher(float("-inf")), MadeUpTeacher(error=RayActorError())])
def test_a_teacher_that_fails_for_good_gives_no_reward_and_too_many_failures_end_the_run(engine) -> None:
    teachers = pool(engine, max_deaths=1)
    verdict = score(teachers)["teacher/big"]
    assert (verdict.status, verdict.score, verdict.token_rewards) == ("failed", None, None)
    assert "teacher 'big' on prompt 'p'" in verdict.detail

    async def until_the_run_ends() -> None:
        again = pool(engine, max_deaths=1)
        for _ in range(16):
            await again.score(PROMPT, make_completion(1))

    with pytest.raises(RewardsFail, match="'teacher/big' failed on 16 of its last 16"):
        asyncio.run(until_the_run_ends())


def test_a_completion_without_the_teacher_s_verdict_loses_its_reward() -> None:
    failed = Verdict(score=None, status="failed", seconds=0.0, detail="gone")
    judged = Verdict(score=1.0, status="scored", seconds=0.0, detail="", token_rewards=np.ones(1, np.float32))
    scored = make_group([1.0, 1.0], [1, 1])
    scored.terms["math"] = RewardTerm(weight=1.0, scores=[1.0, 1.0])
    found = taught(scored, [{"teacher/big": judged}, {"teacher/big": failed}])
    assert (found.rewards, found.terms["math"].scores) == ([1.0, None], [1.0, 0.0])
    assert [verdict.status for verdict in found.verdicts["teacher/big"]] == ["scored", "failed"]
    assert found.token_rewards(0) is judged.token_rewards and found.token_rewards(1) is None


def test_logged_verdicts_count_only_if_today_s_teacher_gave_them() -> None:
    verdict = Verdict(score=1.0, status="scored", seconds=0.0, detail="")
    by_big, by_none = {"math": verdict, "teacher/big": verdict}, {"math": verdict}
    assert [asked_today(by_big, teacher) for teacher in ("big", "small", None)] == [True, False, False]
    assert [asked_today(by_none, teacher) for teacher in ("big", None)] == [False, True]


def test_a_task_that_no_problem_has_is_refused() -> None:
    teacher = TeacherConfig.model_construct(path="", weight=0.5, engines=1, tasks=["maths"])
    check_tasks({"big": teacher}, {"maths", "code"})
    with pytest.raises(ValueError, match=r"teachers.big.tasks: no problem has the task 'maths'.*there are code, math"):
        check_tasks({"big": teacher}, {"math", "code"})
