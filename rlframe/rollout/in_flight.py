"""`InFlight`: the completions that vLLM samples, and their tokens so far."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from rlframe.prompts.visible_text import VisibleText
from rlframe.rollout.partials import Asked, Partials
from rlframe.rollout.requests import Request, sampled_completion
from rlframe.rollout.seam import Seam
from rlframe.types import FinishReason, SampledCompletion, SampledTokens

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM


class InFlight:
    """Requests of an engine in the order of arrival, until they are finished or given up."""

    def __init__(self, llm: AsyncLLM) -> None:
        self.llm = llm
        tokenizer: Any = llm.get_tokenizer()  # transformers' class, with a cache
        self.visible_text = VisibleText(tokenizer)
        self.requests = 0  # since the start; vLLM wants every request id to be new
        self.releases = 0  # likewise
        self._in_flight: dict[Request, None] = {}  # a set in the order of arrival
        self._states: dict[str, Any] = llm.output_processor.request_states  # of vLLM's unfinished requests

    def __len__(self) -> int:
        return len(self._in_flight)

    async def start(
        self, request: Request, salt: str | None, lora: LoRARequest | None
    ) -> asyncio.Task[SampledCompletion | None]:
        """Lets vLLM sample a completion -> a task that waits for it, with the result None if it is given up.

        `salt`: the prefix cache finds keys and values of this salt only.
        """
        seam = self._seam(request)
        if seam and (reason := seam.finish_reason):
            return asyncio.create_task(_ended(request, reason, self.visible_text))
        releases = self.releases
        await self._add(request, salt, lora, seam)
        self._in_flight[request] = None
        task = asyncio.create_task(sampled_completion(request, self.visible_text))
        task.add_done_callback(lambda _: self._in_flight.pop(request, None))
        if releases != self.releases:
            await self._abort([request])
        return task

    async def restart_waiting(self, salt: str, lora: LoRARequest | None) -> None:
        """Adds requests without any token anew: the salt of the old version would find keys of the old version."""
        for request in list(self._in_flight):
            queue = request.queue
            if (state := self._states.get(queue.request_id)) is not None and state.is_prefilling:
                await self._add(request, salt, lora, self._seam(request))
                await self.llm.abort(queue.request_id, internal=True)

    def new_tokens(self) -> Partials | None:
        """Tokens that no earlier call has returned."""
        parts: list[tuple[Asked, SampledTokens]] = []
        for request, state in self._unfinished():
            tokens = request.tokens_so_far(state, request.told)
            if tokens.end > request.told:
                request.told = tokens.end
                parts.append((request.asked, tokens))
        return Partials.of(parts) if parts else None

    async def release(self) -> Partials | None:
        """Gives up all unfinished completions -> all their tokens; requests that enter meanwhile are given up too."""
        self.releases += 1
        unfinished = dict(self._unfinished())
        parts = [(request.asked, request.whole(state)) for request, state in unfinished.items()]
        parts = [(asked, whole) for asked, whole in parts if whole.end]
        await self._abort(list(unfinished))  # vLLM drops the requests before anything else can run
        return Partials.of(parts) if parts else None

    async def probe(self, token_ids: list[int], lora: LoRARequest | None) -> np.ndarray:
        """[L - 1] float32: log-probabilities of given tokens after the first, by the model without a temperature."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self.requests += 1
        parameters = SamplingParams(
            max_tokens=1,
            prompt_logprobs=0,  # only of the given tokens
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        tokens: Any = {"prompt_token_ids": token_ids}
        queue = await self.llm.add_request(f"probe/{self.requests}", tokens, parameters, lora_request=lora)
        output: Any = await queue.get()
        return np.array(output.prompt_logprobs.logprobs, np.float32)

    def _unfinished(self) -> Iterator[tuple[Request, Any]]:
        """Requests with vLLM's states; a request whose output waits to be read has none."""
        for request in self._in_flight:
            if (state := self._states.get(request.queue.request_id)) is not None:
                yield request, state

    def _seam(self, request: Request) -> Seam | None:
        """None for a request without tokens of another engine."""
        return Seam(self.llm, request) if request.given else None

    async def _add(self, request: Request, salt: str | None, lora: LoRARequest | None, seam: Seam | None) -> None:
        self.requests += 1
        request_id = f"{request.prompt.id}#{request.index}/{self.requests}"
        tokens: Any = {"prompt_token_ids": request.token_ids}
        if salt is not None:
            tokens["cache_salt"] = salt
        request.queue = await self.llm.add_request(request_id, tokens, request.parameters(), lora_request=lora)
        if seam:
            seam.move_into(self._states[request.queue.request_id])  # vLLM cannot have sent a token yet

    async def _abort(self, requests: Iterable[Request]) -> None:
        await self.llm.abort([request.queue.request_id for request in requests], internal=True)


async def _ended(request: Request, reason: FinishReason, visible_text: VisibleText) -> SampledCompletion:
    """A completion that had ended with the tokens of other engines. Its experts are not recorded."""
    return request.completion(None, visible_text, reason)
