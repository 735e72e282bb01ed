"""Process reward model: a sequence classifier scores every step of a completion, from which tokens learn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, PrivateAttr, field_validator

from rlframe.model.base_model import absolute, prepare
from rlframe.prompts.steps import Separator, cut
from rlframe.prompts.visible_text import VisibleText
from rlframe.reward.model import ClassifierReward
from rlframe.types import Completion, Message, RolloutGroup, Verdict

if TYPE_CHECKING:
    from rlframe.model.classifier import Classifier

SMALL = 1e-6  # beside a deviation, as in GRPO


class ProcessReward(ClassifierReward):
    """Process supervision with GRPO (Shao et al., 2024, arXiv:2402.03300, section 4.1.3).

    A step of a completion ends with `separator`, cut as `rlframe draw` cuts it for labels. Its score is (output - mean)
    / std at the step's last token in the conversation, where `rlframe tune algorithm=pointwise` trains it. The reward's
    own score is the least or the last step's. Beside that, a token's advantage gains `token_weight` times the sum of
    the scores of the steps that end at or after it, normalised over all steps of the group. Two completions with the
    scores [1, 0] and [2] have the mean 1 and the deviation 0.816: the tokens of the first completion's steps gain
    0 - 1.22 and -1.22, the other's 1.22.
    """

    reads_tokens = True
    max_calls = 2  # a group has as many sequences as all of its steps, and another one is tokenized meanwhile
    name: Literal["steps"]
    separator: Separator
    score: Literal["min", "last"]
    token_weight: float = Field(ge=0)
    tokenizer: str  # the policy's, which tells the token at which a step of the text ends

    _visible_text: VisibleText | None = PrivateAttr(default=None)
    _thread: ThreadPoolExecutor | None = PrivateAttr(default=None)  # long completions take seconds to tokenize

    @field_validator("tokenizer")
    @classmethod
    def _is_the_same_everywhere(cls, path: str) -> str:
        return absolute(path)

    def start(self) -> None:
        from transformers import AutoTokenizer

        super().start()
        self._visible_text = VisibleText(AutoTokenizer.from_pretrained(prepare(self.tokenizer)))
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="steps")

    def close(self) -> None:
        super().close()
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    async def score_group(self, group: RolloutGroup, verdicts: dict[str, list[Verdict]]) -> list[float | Verdict]:
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        cuts = await asyncio.gather(
            *(loop.run_in_executor(self._thread, self._steps, one) for one in group.completions)
        )
        scored = await asyncio.gather(*(self._scores(group.prompt.messages, steps) for steps, _ in cuts))
        rewards = normalised([scores for scores in scored if not isinstance(scores, str)])
        seconds = time.perf_counter() - started
        return [
            Verdict(score=None, status="failed", seconds=seconds, detail=scores, final=True)
            if isinstance(scores, str)
            else self._verdict(ends, scores, next(rewards), seconds)
            for (_, ends), scores in zip(cuts, scored, strict=True)
        ]

    async def _scores(self, messages: list[Message], steps: list[str]) -> np.ndarray | str:
        """[steps] of a completion, or the reason why it cannot be scored."""
        classifier, batcher = await self.loaded()
        try:
            loop = asyncio.get_running_loop()
            beginnings = await loop.run_in_executor(self._thread, step_prefixes, classifier, messages, steps)
        except ValueError as error:
            return str(error)
        outputs = await asyncio.gather(*(batcher.score(token_ids) for token_ids in beginnings))
        return (np.array(outputs) - self.mean) / self.std

    def _verdict(self, ends: list[int], scores: np.ndarray, rewards: np.ndarray, seconds: float) -> Verdict:
        token_rewards = np.zeros(ends[-1], np.float32)
        for end, reward in zip(ends, rewards, strict=True):
            token_rewards[:end] += self.token_weight * reward
        score = float(scores.min() if self.score == "min" else scores[-1])
        detail = " ".join(f"{value:.3g}" for value in scores)
        return Verdict(score=score, status="scored", seconds=seconds, detail=detail, token_rewards=token_rewards)

    def _steps(self, completion: Completion) -> tuple[list[str], list[int]]:
        """The steps of a completion, and its tokens up to the end of each."""
        assert self._visible_text is not None, "a reward is started before it is asked"
        token_ids = completion.token_ids.tolist()
        steps, ends = cut(self._visible_text.of(token_ids), token_ids, self.separator, self._visible_text.of)
        return steps, [*ends, len(token_ids)]


def step_prefixes(classifier: Classifier, messages: list[Message], steps: list[str]) -> list[list[int]]:
    """[steps] the conversation's tokens up to the last one of each step; the last step ends with the conversation.

    Raises ValueError for a conversation that is too long, and for a step without a token of its own.
    """
    whole, length = classifier.tokenize(messages, "".join(steps))
    if length > len(whole):
        raise ValueError(f"the conversation has {length} tokens, more than max_tokens={classifier.max_tokens}")
    begun = ["".join(steps[:count]) for count in range(1, len(steps))]
    ends = [*(_common(classifier.tokenize(messages, text)[0], whole) for text in begun), length]
    before = [_common(classifier.tokenize(messages, "")[0], whole) if begun else 0, *ends]
    if empty := [number for number, (start, end) in enumerate(zip(before, ends, strict=False), 1) if end <= start]:
        raise ValueError(f"no token of the conversation ends step {empty[0]}: the chat template leaves the step out")
    return [whole[:end] for end in ends]


def normalised(scores: list[np.ndarray]) -> Iterator[np.ndarray]:
    """Yields each completion's scores less their mean over all steps of the group, divided by their deviation."""
    steps = np.concatenate(scores) if scores else np.zeros(1)
    return ((row - steps.mean()) / (steps.std() + SMALL) for row in scores)


def _common(one: list[int], other: list[int]) -> int:
    """Tokens with which both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((index for index, (left, right) in pairs if left != right), min(len(one), len(other)))
