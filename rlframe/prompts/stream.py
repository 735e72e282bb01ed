"""`PromptStream`: problems, endlessly, as prompts that the policy can read."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, cast

from rlframe.prompts.base import Problems
from rlframe.prompts.template import Template
from rlframe.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PromptStream:
    """Every problem once an epoch, each epoch in an order of its own that (seed, epoch) alone decide.

    The place in the stream is one number, so a run that saved `position` and seeks back to it goes on with
    exactly the prompts that it would have taken next.
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
        self._position = 0
        self._order: tuple[int, list[int]] = (-1, [])  # (epoch, its permutation): shuffled once, not at each prompt

    @property
    def position(self) -> int:
        """Prompts taken since the start of the run."""
        return self._position

    def seek(self, position: int) -> None:
        if position < 0:
            raise ValueError(f"a stream has no position {position}")
        self._position = position

    def take(self, count: int) -> list[Prompt]:
        """The next `count` prompts. Raises ValueError at one longer than the bound, and then moves no further."""
        prompts = [self._prompt(*self._locate(self._position + step)) for step in range(count)]
        self._position += count
        return prompts

    def check_lengths(self) -> None:
        """Tokenizes every problem once, so that a prompt that is too long stops a run before it starts."""
        for index in range(len(self._problems)):
            self._prompt(index, epoch=0)

    def _locate(self, position: int) -> tuple[int, int]:
        """The problem at a position of the stream, and the epoch there."""
        epoch, place = divmod(position, len(self._problems))
        if self._order[0] != epoch:
            order = list(range(len(self._problems)))
            random.Random(f"{self._seed}/{epoch}").shuffle(order)
            self._order = (epoch, order)
        return self._order[1][place], epoch

    def _prompt(self, index: int, epoch: int) -> Prompt:
        problem = self._problems[index]
        prompt_id = f"{problem.id}@{epoch}"
        messages = self._template.messages(problem)
        encoded = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        token_ids = cast("list[int]", encoded)  # what return_dict=False makes of one conversation
        if len(token_ids) > self._max_prompt_tokens:
            raise ValueError(
                f"prompt {prompt_id} is {len(token_ids)} tokens long, more than prompts.max_tokens = "
                f"{self._max_prompt_tokens}: raise prompts.max_tokens, or leave this problem out"
            )
        return Prompt(
            id=prompt_id, messages=messages, token_ids=token_ids, reference=problem.reference, task=problem.task
        )
