"""`PromptStream`: an endless sequence of prompts, made from a list of problems."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from rlframe.prompts.base import Problems
from rlframe.prompts.template import Template
from rlframe.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptStream:
    """Every problem once an epoch; (seed, epoch) alone decide the order of an epoch.

    The stream never changes: a position always gives the same prompt, so a run resumes from saved positions.
    With 5 problems, position 7 is the third prompt of epoch 1, and its id ends in `@1`.
    """

    def __init__(
        self,
        problems: Problems,
        tokenizer: PreTrainedTokenizerBase,
        template: Template,
        seed: int,
        max_prompt_tokens: int,
    ) -> None:
        if len(problems) == 0:
            raise ValueError("a stream of prompts needs at least one problem")
        self._problems = problems
        self._tokenizer = tokenizer
        self._template = template
        self._seed = seed
        self._max_prompt_tokens = max_prompt_tokens
        # Two epochs: prompts of the previous one are still out when the next one starts.
        self._epoch_order = lru_cache(maxsize=2)(self._shuffled)

    def at(self, position: int) -> Prompt:
        """The prompt at a position, from 0 on. Raises ValueError if the prompt is longer than the bound."""
        if position < 0:
            raise ValueError(f"a stream has no position {position}")
        epoch, index = divmod(position, len(self._problems))
        return self._prompt(self._epoch_order(epoch)[index], epoch)

    def check_lengths(self) -> None:
        """Tokenizes every problem once, so that a prompt that is too long stops a run before it starts."""
        for index in range(len(self._problems)):
            self._prompt(index, epoch=0)

    def _shuffled(self, epoch: int) -> list[int]:
        """Indices of all problems in the order of an epoch."""
        order = list(range(len(self._problems)))
        random.Random(f"{self._seed}/{epoch}").shuffle(order)
        return order

    def _prompt(self, index: int, epoch: int) -> Prompt:
        problem = self._problems[index]
        prompt_id = f"{problem.id}@{epoch}"
        messages = self._template.messages(problem)
        encoded = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        token_ids = cast("list[int]", encoded)  # the result for one conversation with return_dict=False
        if len(token_ids) > self._max_prompt_tokens:
            raise ValueError(
                f"prompt {prompt_id} is {len(token_ids)} tokens long, more than prompts.max_tokens = "
                f"{self._max_prompt_tokens}: raise prompts.max_tokens, or leave this problem out"
            )
        return Prompt(
            id=prompt_id, messages=messages, token_ids=token_ids, reference=problem.reference, task=problem.task
        )
