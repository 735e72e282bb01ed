"""`ScoreEncoder`: the answers of a row as the tokens that a reward model reads."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from rlframe.prompts.rendering import Renderer
from rlframe.rows.tokens import written_turn
from rlframe.rows.types import Comparison, Demonstration, Row
from rlframe.types import Message, Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlframe.prompts.template import ChatTemplate


class ScoreEncoder:
    """Encodes a whole conversation, of which the last token has the score, and the last one of each step before it.

    A token with a score is a completion of its own, and all others are observed. The prompt, which answers share, is a
    turn without a completion. Of the steps "2 + 3 = 5." and " 5 + 4 = 9." to a question q, under SmolLM2's template:

        turn 0   observed <|im_start|>user\\nq<|im_end|>\\n<|im_start|>assistant\\n    completion (nothing)
        turn 1   observed 2 + 3 = 5                                               completion .
        turn 2   observed  5 + 4 = 9.<|im_end|>                                   completion \\n

    transformers scores the last token that is not the padding token, so a conversation ends there.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: ChatTemplate, padding_id: int) -> None:
        """Raises ValueError for a tokenizer without a chat template."""
        self._renderer = Renderer(tokenizer, template)
        self._padding_id = padding_id

    def prompts(self, row: Row) -> list[list[Message]]:
        """The conversation before the answer."""
        return [row.messages]

    def trajectories(self, row: Row) -> list[Trajectory]:
        """The two answers of a comparison, the chosen one first, or the only one of an assessment.

        Thoughts that the chat template leaves out are not read, here and when the model is a reward. Raises ValueError,
        which names the row, where the template leaves out a step.
        """
        assert not isinstance(row, Demonstration), "a reward model learns from comparisons or labels"
        answers = [[row.chosen], [row.rejected]] if isinstance(row, Comparison) else [row.steps]
        prompt = self._renderer.token_ids(row.messages)
        tokens = [self._token_ids(row, steps) for steps in answers]
        shared = min(min(_common(prompt, token_ids), len(token_ids) - 1) for token_ids in tokens)
        return [self._trajectory(row, *answer, shared) for answer in zip(answers, tokens, strict=True)]

    def _trajectory(self, row: Row, steps: list[str], token_ids: list[int], prompt_tokens: int) -> Trajectory:
        begun = [self._token_ids(row, steps[:count]) for count in range(1, len(steps))]
        ends = [prompt_tokens, *(_common(beginning, token_ids) for beginning in begun), len(token_ids)]
        turns = [written_turn(None, token_ids[:prompt_tokens], [])]
        for number, (start, end) in enumerate(pairwise(ends)):
            if end <= start:
                raise ValueError(
                    f"row {row.id}: no token of the conversation ends step {number + 1}, because the chat template "
                    "leaves the step out, or no token begins where the next step does; join the two steps, or set "
                    "another rows.template.chat_template"
                )
            turns.append(written_turn(number, token_ids[start : end - 1], [token_ids[end - 1]]))
        return Trajectory(turns=turns)

    def _token_ids(self, row: Row, steps: list[str]) -> list[int]:
        """The conversation up to the last token that is not the padding token."""
        try:
            token_ids = self._renderer.conversation_token_ids(
                [*row.messages, {"role": "assistant", "content": "".join(steps)}]
            )
        except ValueError as error:
            raise ValueError(f"row {row.id}: {error}") from error
        last = next(index for index in reversed(range(len(token_ids))) if token_ids[index] != self._padding_id)
        return token_ids[: last + 1]


def _common(one: list[int], other: list[int]) -> int:
    """Tokens with which both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))
