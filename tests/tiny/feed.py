"""Engines and reward workers for a feed, which finish what a test lets them, when it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import numpy as np

from rlframe.training import GroupRecord
from rlframe.types import (
    Completion,
    Prompt,
    RolloutGroup,
    SampledCompletion,
    Sampling,
    ScoredGroup,
    Verdict,
    VersionSpan,
)

Place = tuple[Prompt, int]


class Engines:
    """Draws `o3/1` for completion 1 of prompt o3, one after the other in the order of `order`, but none in `held`."""

    def __init__(self, order: Callable[[list[Place]], list[Place]] = list, seconds: float = 0.0) -> None:
        self.version = 0
        self.outstanding = [0]
        self.order, self.seconds = order, seconds
        self.held: set[str] = set()
        self.calls: list[list[str]] = []  # names of the prompts of each
        self.error: Exception | None = None

    @property
    def asked(self) -> list[str]:
        return [name for call in self.calls for name in call]

    async def generate(self, prompts: list[Prompt], sampling: Sampling) -> AsyncIterator[SampledCompletion]:
        self.calls.append(names(prompts))
        left = self.order([(prompt, index) for prompt in prompts for index in range(sampling.completions)])
        while left:
            await asyncio.sleep(self.seconds or 0.001)
            if self.error:
                raise self.error
            for prompt, index in left:
                if f"{prompt.id}/{index}" not in self.held:
                    left.remove((prompt, index))
                    yield self._sampled(prompt, index)
                    break

    def put(self, group: ScoredGroup) -> ScoredGroup:
        return group

    def _sampled(self, prompt: Prompt, index: int) -> SampledCompletion:
        span = VersionSpan(version=self.version, start=0, end=3)
        text = f"{prompt.id}/{index}"
        token_ids, logprobs = np.array([1, 2, 3], np.int32), np.full(3, -1.0, np.float32)
        completion = Completion(
            token_ids=token_ids, logprobs=logprobs, versions=[span], text=text, finish_reason="stop"
        )
        return SampledCompletion(prompt_id=prompt.id, index=index, completion=completion)


class Rewards:
    """1 for completion 1 and 0 for completion 0, or 0 for both of a prompt in `equal`; after `seconds()`."""

    def __init__(self, equal: tuple[str, ...] = (), seconds: Callable[[], float] = lambda: 0.0) -> None:
        self.in_flight = [0]
        self.equal, self.seconds = equal, seconds
        self.stuck: set[str] = set()
        self.error: Exception | None = None

    async def score(self, prompt: Prompt, completion: Completion) -> dict[str, Verdict]:
        await asyncio.sleep(3600 if completion.text in self.stuck else self.seconds())
        if self.error:
            raise self.error
        score = 0.0 if prompt.id in self.equal else float(completion.text[-1])
        return {"math": Verdict(score=score, status="scored", seconds=0.0, detail="")}

    async def score_group(self, group: RolloutGroup, verdicts: list[dict[str, Verdict]]) -> ScoredGroup:
        row = [of_one["math"] for of_one in verdicts]
        return ScoredGroup(group=group, rewards=[verdict.score for verdict in row], verdicts={"math": row})

    def metrics(self) -> dict[str, float]:
        return {}


def names(of: list[GroupRecord] | list[Prompt]) -> list[str]:
    ids = [each.prompt_id if isinstance(each, GroupRecord) else each.id for each in of]
    return [prompt_id.removesuffix("@0") for prompt_id in ids]
