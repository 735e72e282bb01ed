"""The held-out sets of a run: problems loaded, checked and tokenized before an actor starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import chain
from typing import TYPE_CHECKING

from rlframe.errors import ConfigError
from rlframe.prompts.base import Problems, in_order
from rlframe.prompts.rendering import Renderer
from rlframe.prompts.stream import PromptStream
from rlframe.record.evaluations import MAIN_SET
from rlframe.reward import composition
from rlframe.train.rendered import check_rendered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlframe.config.run import RunConfig
    from rlframe.prompts.overlap import HeldOut
    from rlframe.types import Problem, Prompt


def open_held_out(
    run: RunConfig, tokenizer: PreTrainedTokenizerBase, warn: Callable[[str], None]
) -> dict[str, list[Prompt]]:
    """Every prompt of each held-out set, for a run that trains on nothing. `warn` gets lines for the console.

    Raises ConfigError for a row that is not a problem, a reference that no reward can use, a prompt that is too long,
    and a rendered prompt that `check_rendered` refuses.
    """
    try:
        sets = load(run)
        # A reward of further tasks may speak on none of the held-out problems.
        composition.check(chain(*sets.values()), run.reward.terms, every_task=False)
        prompts = tokenize(sets, run, tokenizer, warn)
    except ValueError as error:
        raise ConfigError(f"prompts: {error}") from error
    template = run.prompts.template
    check_rendered(Renderer(tokenizer, template), template, sets[MAIN_SET][0], run.reward.terms)
    return prompts


def load(run: RunConfig) -> dict[str, list[Problem]]:
    """Every problem of each set. Raises ValueError for a set whose deciding reward judges none of its problems."""
    sets: dict[str, list[Problem]] = {}
    for name, source in run.held_out_sources.items():
        sets[name] = list(in_order(source.load()))
        check_extra(sets[name])
        decider = run.held_out_sets[name].reward or run.deciding_reward
        tasks = {problem.task for problem in sets[name]}
        if sets[name] and not any(decider in composition.speaking(run.reward.terms, task) for task in tasks):
            raise ValueError(
                f"{_key(name)}: the reward {decider!r} decides what is right, and scores none of the set's tasks "
                f"{', '.join(sorted(tasks))}; set {'evaluate' if name == MAIN_SET else _key(name)}.reward"
            )
    return sets


def tokenize(
    sets: dict[str, list[Problem]], run: RunConfig, tokenizer: PreTrainedTokenizerBase, warn: Callable[[str], None]
) -> dict[str, list[Prompt]]:
    """The prompts of each set. Raises ValueError for an empty set, and for a stop token that the tokenizer lacks."""
    prompts: dict[str, list[Prompt]] = {}
    for name, problems in sets.items():
        prompts[name] = stream_of(problems, run, tokenizer).first_epoch()
        if skipped := len(problems) - len(prompts[name]):
            warn(f"{_key(name)}: {skipped} of {len(problems)} problems are too long (prompts.overlong=skip)")
        if not prompts[name]:
            bound = run.prompts.max_tokens
            raise ValueError(f"{_key(name)}: every prompt is longer than prompts.max_tokens={bound}; raise it")
    for key, token_ids in _stop_token_ids(run).items():
        if unknown := [token_id for token_id in token_ids if token_id >= len(tokenizer)]:
            raise ValueError(f"{key}: {unknown[0]} is no token; the tokenizer has {len(tokenizer)}")
    return prompts


def check_extra(problems: list[Problem]) -> None:
    """Raises ValueError for extra values that the files of rollouts could not hold, as a date or NaN."""
    for problem in problems:
        try:
            json.dumps(problem.extra, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"problem {problem.id}: extra holds a value that JSON does not know ({error}); leave its field out of "
                "extra_fields"
            ) from error


def stream_of(
    problems: Problems, run: RunConfig, tokenizer: PreTrainedTokenizerBase | None, heldout: HeldOut | None = None
) -> PromptStream:
    """The stream of some problems as the run renders them. `heldout`: conversations that it skips."""
    config = run.prompts
    return PromptStream(
        problems,
        tokenizer,
        config.template,
        run.seed,
        config.max_tokens,
        overlong=config.overlong,
        heldout=heldout,
    )


def _stop_token_ids(run: RunConfig) -> dict[str, list[int]]:
    """The stop tokens of training and of each set, by their key."""
    sets = {f"{_key(name)}.stop_token_ids": one.stop_token_ids or [] for name, one in run.held_out_sets.items()}
    return {"rollout.stop_token_ids": run.rollout.stop_token_ids} | sets


def _key(name: str) -> str:
    return "prompts.heldout" if name == MAIN_SET else f"evaluate.sets.{name}"
