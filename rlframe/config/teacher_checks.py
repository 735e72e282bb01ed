"""Combinations of settings that cannot work with `teachers`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

from rlframe.config.keys import RunKeys
from rlframe.model import base_model as model
from rlframe.reward.steps import ProcessReward


def a_task_has_one_teacher(run: RunKeys) -> str | None:
    for (first, one), (second, other) in combinations(run.teachers.items(), 2):
        if one.tasks is None or other.tasks is None:
            shared = one.tasks or other.tasks or ["every task"]
        else:
            shared = [task for task in one.tasks if task in other.tasks]
        if shared:
            return (
                f"teachers.{second}.tasks: {shared[0]!r} has the teacher {first} too, and one teacher judges a token; "
                "give each teacher tasks of its own"
            )


def teacher_judges_the_sampled_distribution(run: RunKeys) -> str | None:
    if run.teachers and run.rollout.temperature != 1:
        return (
            f"rollout.temperature: {run.rollout.temperature:g} with a teacher, whose log-probabilities are of "
            "temperature 1; use 1.0 (the divergence of two temperatures is no distance of two models)"
        )


def algorithm_judges_tokens(run: RunKeys) -> str | None:
    of_steps = [name for name, term in run.reward.terms.items() if isinstance(term, ProcessReward)]
    if (run.teachers or of_steps) and not run.algorithm.judges_tokens:
        return (
            f"algorithm: the loss of {run.algorithm.name} has one ratio for a whole sequence, so it would average the "
            f"rewards that {', '.join([*run.teachers, *of_steps])} gives to tokens; use grpo, dapo, dr_grpo, cispo, "
            "rloo or reinforce"
        )


def teacher_reads_the_longest_sequence(run: RunKeys) -> str | None:
    for name, teacher in run.teachers.items():
        context, longest = model.context_length(teacher.path), run.longest_sequence + 1
        if context is not None and longest > context:
            return (
                f"teachers.{name}.path: the model takes {context} tokens, and a prompt with its completion has up to "
                f"{run.longest_sequence} (prompts.max_tokens + rollout.max_tokens; vLLM needs one more); lower these, "
                "or take a teacher with a longer context"
            )


def teacher_gpus_are_its_workers(run: RunKeys) -> str | None:
    for name, teacher in run.teachers.items():
        engine = teacher.engine(run.rollout)
        if engine.gpus and engine.gpus != engine.workers:
            return (
                f"teachers.{name}.gpus: tensor_parallel={engine.tensor_workers} x pipeline_parallel="
                f"{engine.pipeline_parallel} = {engine.workers} workers use as many GPUs, not {engine.gpus}; set "
                f"{engine.workers}, or change a factor"
            )


TEACHER_CHECKS: list[Callable[[RunKeys], str | None]] = [
    a_task_has_one_teacher,
    teacher_judges_the_sampled_distribution,
    algorithm_judges_tokens,
    teacher_reads_the_longest_sequence,
    teacher_gpus_are_its_workers,
]
