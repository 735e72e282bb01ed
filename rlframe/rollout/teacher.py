"""`TeacherEngine`: vLLM with a teacher's weights, which tells log-probabilities of the policy's tokens."""

from __future__ import annotations

import os

import numpy as np

from rlframe.rollout.death import EngineDead, deaths_of
from rlframe.rollout.vllm import VLLMEngine


class TeacherEngine(VLLMEngine):
    """An engine whose weights never change. Ray starts a dead one again, with the same name and model."""

    async def logprobs(self, prompt: list[int], completion: np.ndarray) -> np.ndarray:
        """[L] float32: log p(token | tokens before) of a completion's tokens, by the model without a temperature.

        A call is one forward pass over prompt and completion, by vLLM's `prompt_logprobs`; such a request reads no
        cached prefix, whose log-probabilities are unknown. Calls share steps of the scheduler.
        """
        try:
            with deaths_of(self.llm, self.name):
                return (await self.in_flight.probe([*prompt, *completion.tolist()], None))[len(prompt) - 1 :]
        except EngineDead:
            os._exit(1)  # a process of vLLM has died, and Ray starts the whole actor again

    async def ping(self) -> None:
        """Returns at once."""

    async def facts(self) -> dict[str, float]:
        """Returns once the engine has started."""
        return {}
