"""`EndpointScorer`: scored groups whose completions an OpenAI-compatible endpoint samples."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import AliasPath, BaseModel, Field

from rlframe.actors.chat import ChatClient
from rlframe.actors.waits import waiting
from rlframe.errors import RunFailed
from rlframe.rollout.requests import request_seed
from rlframe.types import Completion, FinishReason, RolloutGroup, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from rlframe.actors.background import Background
    from rlframe.reward.pool import RewardPool
    from rlframe.types import Prompt, Sampling, ScoredGroup

QUOTED_CHARS = 500  # of a reply that holds no completion
FATAL = (401, 404)  # statuses of a wrong key, model or path, which no other prompt would change


class Reply(BaseModel):
    """The fields of an endpoint's reply that make a completion."""

    content: str | None = Field(default=None, validation_alias=AliasPath("choices", 0, "message", "content"))
    reasoning: str | None = Field(default=None, validation_alias=AliasPath("choices", 0, "message", "reasoning"))
    reasoning_content: str | None = Field(
        default=None, validation_alias=AliasPath("choices", 0, "message", "reasoning_content")
    )
    finish_reason: FinishReason = Field(validation_alias=AliasPath("choices", 0, "finish_reason"))
    tokens: int | None = Field(default=None, validation_alias=AliasPath("usage", "completion_tokens"))

    @property
    def text(self) -> str:
        """The completion as the model wrote it: thoughts that a reasoning server keeps apart get their tags back.

        An answer cut off in its thoughts has no `</think>`.
        """
        thoughts = self.reasoning_content or self.reasoning
        if not thoughts:
            return self.content or ""
        closed = "</think>" if self.content or self.finish_reason == "stop" else ""
        return f"<think>{thoughts}{closed}{self.content or ''}"


class EndpointScorer:
    """Samples by an endpoint what `Scorer` samples by engines, and scores it by the same reward workers."""

    def __init__(
        self,
        client: ChatClient,
        model: str,
        request: dict[str, Any],
        rewards: RewardPool,
        background: Background,
        *,
        warn: Callable[[str], None],
    ) -> None:
        """`request`: fields of each request over those made here; None leaves one out. `warn`: for prompts given up."""
        self.client = client
        self.model = model
        self.request = request
        self.rewards = rewards
        self.background = background
        self.warn = warn
        self._tokens: Counter[str] = Counter()  # prompt id -> tokens, by the endpoint's words, until `tokens`

    def begin(self, prompts: list[Prompt], sampling: Sampling) -> Future[list[ScoredGroup]]:
        """Starts to sample and score prompts, and does not wait."""
        return self.background.begin(self._score(prompts, sampling))

    def finish(self, future: Future[list[ScoredGroup]]) -> list[ScoredGroup]:
        """The groups in the order of their prompts, without prompts that were given up, which are warned about.

        Raises RunFailed where the endpoint cannot be reached, or refuses the key or the model; and a reward's error.
        """
        with waiting(["reward"], "sample by the endpoint and score", self.background.stall_timeout_s, "draw.endpoint"):
            return self.background.result(future)

    def tokens(self, group: ScoredGroup) -> int:
        """Sampled tokens of a group, by the endpoint's words. For one call."""
        return self._tokens.pop(group.group.prompt.id, 0)

    async def _score(self, prompts: list[Prompt], sampling: Sampling) -> list[ScoredGroup]:
        groups = await asyncio.gather(*[self._group(prompt, sampling) for prompt in prompts])
        return [group for group in groups if group is not None]

    async def _group(self, prompt: Prompt, sampling: Sampling) -> ScoredGroup | None:
        """The group of a prompt; None where the prompt is given up, for the reason of its first failed completion."""
        calls = [self._judged(prompt, index, sampling) for index in range(sampling.completions)]
        results = await asyncio.gather(*calls)
        judged = [result for result in results if not isinstance(result, str)]
        if reason := next((result for result in results if isinstance(result, str)), None):
            self.warn(f"{prompt.id} is given up: {reason}")
            return None
        group = RolloutGroup.single_turn(prompt, [completion for completion, _ in judged])
        return await self.rewards.score_group(group, [verdicts for _, verdicts in judged])

    async def _judged(
        self, prompt: Prompt, index: int, sampling: Sampling
    ) -> tuple[Completion, dict[str, Verdict]] | str:
        """A completion and its verdicts, or the reason why there is none."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAIError

        body = ""
        try:
            body = await self.client.ask(
                model=self.model, messages=prompt.messages, extra_body=self._fields(prompt, index, sampling)
            )
            reply = Reply.model_validate_json(body)
        except (OpenAIError, TimeoutError, ValueError) as error:
            reason = f"{type(error).__name__}: {error or 'no whole reply in time'}"
            gone = isinstance(error, APIConnectionError) and not isinstance(error, APITimeoutError)
            if gone or (isinstance(error, APIStatusError) and error.status_code in FATAL):
                raise RunFailed(
                    f"draw.endpoint: model {self.model!r} does not answer: {reason}"
                    f"{f' ({error.__cause__})' if error.__cause__ else ''}; the same command goes on with the draw"
                ) from None
            return f"completion {index}: {reason}" + (f"; the reply begins {body[:QUOTED_CHARS]!r}" if body else "")
        self._tokens[prompt.id] += reply.tokens or 0
        completion = Completion(
            token_ids=np.empty(0, np.int32),
            logprobs=np.empty(0, np.float32),
            versions=[],
            text=reply.text,
            finish_reason=reply.finish_reason,
        )
        return completion, await self.rewards.score(prompt, completion)

    def _fields(self, prompt: Prompt, index: int, sampling: Sampling) -> dict[str, Any]:
        """Sampling fields of a request. Those that are not OpenAI's are sent only where they change anything."""
        fields = {
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": request_seed(sampling.seed, prompt.id, index),
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or None,
            "min_p": sampling.min_p or None,
            "stop": sampling.stop or None,
        }
        return {name: value for name, value in (fields | self.request).items() if value is not None}
