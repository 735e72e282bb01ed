"""vLLM's requests and outputs: a completion to sample -> `SamplingParams`, an output -> `SampledCompletion`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from rlframe.types import Completion, FinishReason, Prompt, SampledCompletion, SampledTokens, Sampling, VersionSpan

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.v1.engine.output_processor import RequestOutputCollector, RequestState

    from rlframe.prompts.visible_text import VisibleText
    from rlframe.rollout.partials import Asked


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """A completion that the engine samples, from its first token or after the tokens of another engine."""

    prompt: Prompt
    index: int  # in the prompt's group
    sampling: Sampling
    call: str  # name of the call of `generate`
    given: SampledTokens | None  # first tokens of the completion, from another engine
    queue: RequestOutputCollector = field(init=False)  # gets vLLM's output; another queue after a restart
    told: int = field(init=False)  # tokens of the completion that a progress answer has told

    def __post_init__(self) -> None:
        self.told = self.first

    @property
    def first(self) -> int:
        """The first token of the completion that this engine samples."""
        return self.given.end if self.given else 0

    @property
    def asked(self) -> Asked:
        return self.call, self.prompt.id, self.index

    @property
    def token_ids(self) -> list[int]:
        """The tokens after which vLLM samples."""
        return self.prompt.token_ids + (self.given.token_ids.tolist() if self.given else [])

    async def output(self) -> Any:
        """vLLM's RequestOutput. The output of an aborted queue is no output of the request."""
        while True:
            queue = self.queue
            output = await queue.get()
            if queue is self.queue:
                return output

    def parameters(self) -> SamplingParams:
        """vLLM's parameters of the tokens to come."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        sampling = self.sampling
        return SamplingParams(
            n=1,
            max_tokens=max(1, sampling.max_tokens - self.first),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            stop=sampling.stop,
            stop_token_ids=sampling.stop_token_ids,
            seed=request_seed(sampling.seed, self.prompt.id, self.index, self.first),
            logprobs=0,  # only of the sampled token
            flat_logprobs=True,
            # vLLM detokenizes token by token, which only the search for stop texts needs: a single call of our own
            # detokenizes the whole completion. A stop text may be a special token.
            detokenize=bool(sampling.stop),
            skip_special_tokens=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def tokens_so_far(self, state: RequestState, start: int) -> SampledTokens:
        """Tokens from `start` on, which this engine has sampled, by vLLM's state of an unfinished request."""
        books: Any = state
        skipped = start - self.first
        token_ids = np.array(books.detokenizer.output_token_ids[skipped:], np.int32)
        logprobs = np.array(books.logprobs_processor.logprobs.logprobs[skipped:], np.float32)
        starts = [self.first + place for _, place in books.weight_version_starts]  # none before the first token
        spans = [
            VersionSpan(version=int(version), start=max(place, start), end=end)
            for (version, _), (place, end) in zip(
                books.weight_version_starts, pairwise([*starts, start + len(token_ids)]), strict=True
            )
            if end > start
        ]
        return SampledTokens(start=start, token_ids=token_ids, logprobs=logprobs, versions=spans)

    def whole(self, state: RequestState) -> SampledTokens:
        """All tokens of an unfinished completion."""
        sampled = self.tokens_so_far(state, self.first)
        return SampledTokens.joined([self.given, sampled]) if self.given else sampled

    def completion(
        self, sampled: SampledTokens | None, visible_text: VisibleText, finish_reason: FinishReason, **further: Any
    ) -> SampledCompletion:
        """The whole completion: the tokens of other engines, then the tokens that this engine has sampled."""
        whole = SampledTokens.joined([part for part in (self.given, sampled) if part is not None])
        completion = Completion(
            token_ids=whole.token_ids,
            logprobs=whole.logprobs,
            versions=whole.versions,
            text=visible_text.of(whole.token_ids.tolist()),
            finish_reason=finish_reason,
            **further,
        )
        return SampledCompletion(prompt_id=self.prompt.id, index=self.index, completion=completion)


def request_seed(seed: int, prompt_id: str, index: int, first: int = 0) -> int:
    """A different seed for each completion, the same in every run with the same `seed`.

    `first`: tokens of other engines. A generator starts anew with each request, so with the same seed the next token
    would get the noise of the completion's first one.
    """
    name = f"{seed}/{prompt_id}/{index}" + (f"/{first}" if first else "")
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


async def sampled_completion(request: Request, visible_text: VisibleText) -> SampledCompletion | None:
    """The completion of a request, once it is finished; None: the request was given up."""
    result = await request.output()
    output = result.outputs[0]
    if output.finish_reason == "abort":
        return None
    first = request.first
    sampled = SampledTokens(
        start=first,
        token_ids=np.array(list(output.token_ids), np.int32),
        logprobs=np.array(output.logprobs.logprobs, np.float32),
        versions=[
            VersionSpan(version=int(span.version), start=first + span.start, end=first + span.end)
            for span in output.weight_versions
        ],
    )
    return request.completion(
        sampled,
        visible_text,
        output.finish_reason,
        cached_tokens=min(result.num_cached_tokens or 0, len(request.prompt.token_ids)),
        routed_experts=output.routed_experts,
    )
