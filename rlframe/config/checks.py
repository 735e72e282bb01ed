"""Combinations of settings that cannot work: one rule per function, all in `CHECKS`.

Rules on one subject are in the file of the subject: `learner_checks.py`, `device_checks.py`, `placement_checks.py`, ...

A check returns None if the combination works, or else one line: the key, the problem, and the remedy.
"""

from __future__ import annotations

from collections.abc import Callable

from rlframe.config.keys import RunKeys, SharedKeys
from rlframe.model import base_model as model
from rlframe.rollout.config import LEAST_TEMPERATURE


def completions_divide_over_ranks(run: RunKeys) -> str | None:
    completions, ranks = run.prompts_per_step * run.rollout.group_size, run.learner.ranks
    if completions % ranks:
        return (
            f"learner.ranks: {completions} completions a step (prompts_per_step={run.prompts_per_step} x "
            f"rollout.group_size={run.rollout.group_size}) do not divide over {ranks} ranks; choose a divisor"
        )


def prompts_divide_into_minibatches(run: RunKeys) -> str | None:
    if run.prompts_per_step % run.learner.minibatches:
        return (
            f"learner.minibatches: prompts_per_step={run.prompts_per_step} prompts do not divide into "
            f"{run.learner.minibatches} minibatches; choose a divisor"
        )


def mismatch_has_a_correction(run: RunKeys) -> str | None:
    if run.mismatch.action == "correct" and not run.correction:
        return "mismatch.action: correct switches on `correction`, but that is none; choose one, as tis"


def group_has_completions_to_compare(run: RunKeys) -> str | None:
    if run.rollout.group_size < 2 and run.algorithm.compares_completions:
        return (
            f"rollout.group_size: {run.algorithm.name} compares the completions of a prompt, and there is only one; "
            "use 2 or more, or algorithm=reinforce_pp"
        )


def dynamic_sampling_drops_only_groups_that_teach_nothing(run: RunKeys) -> str | None:
    if not run.dynamic_sampling:
        return None
    teachers = {
        f"algorithm={run.algorithm.name}": not run.algorithm.compares_completions,
        "learner.entropy_bonus": run.learner.entropy_bonus != 0,
        "kl": run.kl is not None,
    }
    if taught_by := [key for key, teaches in teachers.items() if teaches]:
        return (
            f"dynamic_sampling: replaces groups of equal rewards, and under {' and '.join(taught_by)} such groups "
            "teach the policy too; use false, or else an algorithm with a baseline within the group, "
            "learner.entropy_bonus=0 and kl=none"
        )


def algorithm_has_its_correction(run: RunKeys) -> str | None:
    if not run.algorithm.needs_correction or run.initial_correction:
        return None
    problem = f"{run.algorithm.name} clips closer than engine and learner agree, so noise would stop whole completions"
    if run.correction:
        return f"mismatch.action: {problem} until the correction is switched on; use warn or stop"
    return f"correction: {problem}; use correction=proximal, which makes ratios against the learner's own probabilities"


def kl_in_the_reward_reaches_the_algorithm(run: RunKeys) -> str | None:
    if run.kl and run.kl.place == "reward" and run.algorithm.reads_terms:
        return (
            f"kl.place: {run.algorithm.name} takes the scores of the reward's terms, of which the KL is none; use "
            "kl.place=loss with kl.estimator=k3"
        )


def min_lr_is_below_lr(run: SharedKeys) -> str | None:
    if run.learner.min_lr > run.learner.lr:
        return f"learner.min_lr: {run.learner.min_lr:g} is above learner.lr={run.learner.lr:g}; make it smaller"


def algorithm_learns_from_rollouts(run: RunKeys) -> str | None:
    if run.algorithm.learns_from != "rollouts":
        return (
            f"algorithm: {run.algorithm.name} learns from written rows and not from rollouts; use `rlframe tune`, or "
            "another algorithm, as dapo"
        )


def raw_prompts_have_no_chat_template(run: RunKeys) -> str | None:
    template = run.prompts.template
    keys = [key for key in ("chat_template", "chat_template_kwargs") if getattr(template, key)]
    if template.raw and keys:
        return f"prompts.template.raw: true takes no chat template; use false, or leave out {' and '.join(keys)}"


def training_samples_from_the_whole_softmax(run: RunKeys) -> str | None:
    off = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}
    if cuts := [key for key, value in off.items() if getattr(run.rollout, key) != value]:
        return (
            f"rollout.{cuts[0]}: the engine would sample from a part of the vocabulary, but the learner computes the "
            f"softmax over all of it, so ratios would be wrong; use {off[cuts[0]]}, and cut the distribution of "
            f"evaluations alone, by evaluate.{cuts[0]}"
        )


def training_temperature_is_the_engines(run: RunKeys) -> str | None:
    if run.rollout.temperature < LEAST_TEMPERATURE:
        return (
            f"rollout.temperature: at {run.rollout.temperature:g} the completions of a prompt are nearly the same and "
            f"teach nothing (0 is greedy; vLLM raises a lower value to {LEAST_TEMPERATURE:g}, the learner does not); "
            f"use {LEAST_TEMPERATURE:g} or more, and evaluate.temperature=0.0 with evaluate.samples=1 for greedy "
            "evaluations"
        )


def sequence_fits_model(run: RunKeys) -> str | None:
    max_tokens = run.rollout.max_tokens
    return beyond_context(run, "rollout.max_tokens", max_tokens, f"rollout.max_tokens={max_tokens}")


def model_can_be_dequantised(run: SharedKeys) -> str | None:
    method = model.quantisation_method(run.model.path)
    if method and not model.is_dequantised_in_loading(run.model.path):
        return (
            f"model.path: the weights are quantised ({method}), and the learner trains bfloat16 or float32; of "
            "quantised weights it reads FP8 with weight_block_size only; save them dequantised with transformers, and "
            "give that folder"
        )


def sequence_fits_micro_batch(run: RunKeys) -> str | None:
    longest, ranks_per_sequence = run.longest_sequence, run.learner.sequence_parallel
    if longest > ranks_per_sequence * run.learner.micro_batch_tokens:
        return (
            f"learner.micro_batch_tokens: {run.learner.micro_batch_tokens} cannot hold one sequence of up to "
            f"{longest} tokens (prompts.max_tokens + rollout.max_tokens); make it at least "
            f"{-(-longest // ranks_per_sequence)}"
        )


def beyond_context(run: RunKeys, key: str, max_tokens: int, addend: str) -> str | None:
    """The problem of a completion bound under `key` that the model's context cannot hold behind the longest prompt.

    `addend`: the bound as the sum in the message shows it.
    """
    context, prompt_tokens = model.context_length(run.model.path), run.prompts.max_tokens
    longest = prompt_tokens + max_tokens
    if context is not None and longest > context:
        return (
            f"{key}: prompts.max_tokens={prompt_tokens} + {addend} = {longest} tokens, but the model at model.path "
            f"takes {context}; at most {context - prompt_tokens} would fit"
        )


# In the order of their report.
SHARED_CHECKS: list[Callable[[SharedKeys], str | None]] = [
    min_lr_is_below_lr,
    model_can_be_dequantised,
]
CHECKS: list[Callable[[RunKeys], str | None]] = [
    algorithm_learns_from_rollouts,
    completions_divide_over_ranks,
    prompts_divide_into_minibatches,
    mismatch_has_a_correction,
    group_has_completions_to_compare,
    dynamic_sampling_drops_only_groups_that_teach_nothing,
    algorithm_has_its_correction,
    kl_in_the_reward_reaches_the_algorithm,
    *SHARED_CHECKS,
    raw_prompts_have_no_chat_template,
    training_samples_from_the_whole_softmax,
    training_temperature_is_the_engines,
    sequence_fits_model,
    sequence_fits_micro_batch,
]
