"""`PromptStream`: an endless sequence of prompts, made from a list of problems."""

from __future__ import annotations

import random
from array import array
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from rlframe.errors import ConfigError
from rlframe.prompts.base import Problems
from rlframe.prompts.overlap import HeldOut
from rlframe.prompts.rendering import Renderer
from rlframe.prompts.template import Template
from rlframe.types import Problem, Prompt, Skipped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


LongPrompts: TypeAlias = Literal["error", "skip"]


class PromptStream:
    """Every problem once an epoch; (seed, epoch) alone decide the order of an epoch.

    The stream never changes: a position always gives the same prompt, so a run resumes from saved positions.
    With 5 problems, position 7 is the third prompt of epoch 1, and its id ends in `@1`. The position of a held-out
    problem, and of a prompt that is too long where `overlong` is skip, always gives the same `Skipped`.
    """

    def __init__(
        self,
        problems: Problems,
        tokenizer: PreTrainedTokenizerBase | None,
        template: Template,
        seed: int,
        max_prompt_tokens: int,
        *,
        overlong: LongPrompts,
        heldout: HeldOut | None = None,
    ) -> None:
        """`heldout`: conversations that the stream skips; None: of a stream that is held out itself.

        `tokenizer` None: prompts have no token ids, and any length, as an endpoint renders them.
        """
        if len(problems) == 0:
            raise ValueError("a stream of prompts needs at least one problem")
        self._problems = problems
        self._renderer = Renderer(tokenizer, template) if tokenizer is not None else None
        self._template = template
        self._seed = seed
        self._max_prompt_tokens = max_prompt_tokens
        self._overlong = overlong
        self._heldout = heldout
        # Two epochs: prompts of the previous one are still out when the next one starts.
        self._epoch_order = lru_cache(maxsize=2)(self._shuffled)

    def at(self, position: int) -> Prompt | Skipped:
        """The prompt at a position, from 0 on.

        Raises ConfigError for a row that is no problem, and for a prompt that is too long, unless to skip it.
        """
        if position < 0:
            raise ValueError(f"a stream has no position {position}")
        epoch, index = self.locate(position)
        try:
            problem = self._problems[index]
        except ValueError as error:  # in a row that the start did not reach
            raise ConfigError(f"prompts: {error}") from error
        return self._prompt(problem, epoch)

    def __len__(self) -> int:
        """Positions of an epoch: the number of problems."""
        return len(self._problems)

    def locate(self, position: int) -> tuple[int, int]:
        """The epoch of a position, and the index of its problem in the source."""
        epoch, place = divmod(position, len(self._problems))
        return epoch, self._epoch_order(epoch)[place]

    def first_epoch(self) -> list[Prompt]:
        """Every prompt of the first epoch, in its order, without skipped ones."""
        prompts = [self.at(position) for position in range(len(self._problems))]
        return [prompt for prompt in prompts if isinstance(prompt, Prompt)]

    def count_skipped(self, problems: list[Problem]) -> int:
        """Tokenizes some of the stream's problems -> the number of skipped ones.

        Raises ConfigError for a prompt that is too long, unless to skip it, and if all problems are skipped.
        """
        skipped = sum(isinstance(self._prompt(problem, epoch=0), Skipped) for problem in problems)
        if skipped == len(problems):
            raise ConfigError(
                f"all {skipped} problems of a sample are held out, or longer than prompts.max_tokens = "
                f"{self._max_prompt_tokens}: raise prompts.max_tokens, or choose other problems"
            )
        return skipped

    def _shuffled(self, epoch: int) -> array[int]:
        """Indices of all problems in the order of an epoch, in 4 bytes each."""
        order = array("I", range(len(self._problems)))
        random.Random(f"{self._seed}/{epoch}").shuffle(order)
        return order

    def _prompt(self, problem: Problem, epoch: int) -> Prompt | Skipped:
        prompt_id = f"{problem.id}@{epoch}"
        if self._heldout is not None and self._heldout.match(problem) is not None:
            return Skipped(id=prompt_id, reason="heldout")
        messages = self._template.messages(problem)
        token_ids = self._renderer.token_ids(messages) if self._renderer else []
        if len(token_ids) > self._max_prompt_tokens:
            if self._overlong == "skip":
                return Skipped(id=prompt_id, reason="overlong")
            raise ConfigError(
                f"prompt {prompt_id} is {len(token_ids)} tokens long, more than prompts.max_tokens = "
                f"{self._max_prompt_tokens}: raise prompts.max_tokens, or set prompts.overlong=skip"
            )
        return Prompt(
            id=prompt_id,
            messages=messages,
            token_ids=token_ids,
            reference=problem.reference,
            task=problem.task,
            extra=problem.extra,
        )
