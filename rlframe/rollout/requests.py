"""vLLM's requests and outputs: a completion to sample -> `SamplingParams`, an output -> `SampledCompletion`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rlframe.types import Completion, Prompt, SampledCompletion, Sampling, VersionSpan

if TYPE_CHECKING:
    from vllm import SamplingParams
    from vllm.v1.engine.output_processor import RequestOutputCollector

    from rlframe.prompts.visible_text import VisibleText


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """A completion that the engine samples."""

    prompt: Prompt
    index: int  # in the prompt's group
    sampling: Sampling
    queue: RequestOutputCollector  # gets vLLM's output; another queue after a restart

    async def output(self) -> Any:
        """vLLM's RequestOutput. The output of an aborted queue is no output of the request."""
        while True:
            queue = self.queue
            output = await queue.get()
            if queue is self.queue:
                return output


def sampling_parameters(sampling: Sampling, prompt: Prompt, index: int) -> SamplingParams:
    """vLLM's parameters of a request for completion `index` of the prompt."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=1,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        stop=sampling.stop,
        stop_token_ids=sampling.stop_token_ids,
        seed=request_seed(sampling.seed, prompt.id, index),
        logprobs=0,  # only of the sampled token
        flat_logprobs=True,
        # vLLM detokenizes token by token, which only the search for stop texts needs: a single call of our own
        # detokenizes the whole completion. A stop text may be a special token.
        detokenize=bool(sampling.stop),
        skip_special_tokens=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def request_seed(seed: int, prompt_id: str, index: int) -> int:
    """A different seed for each completion, the same in every run with the same `seed`."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{prompt_id}/{index}".encode()).digest()[:7], "big")


async def sampled_completion(request: Request, visible_text: VisibleText) -> SampledCompletion:
    """The completion of a request, once it is finished."""
    result = await request.output()
    output = result.outputs[0]
    token_ids = list(output.token_ids)
    return SampledCompletion(
        prompt_id=request.prompt.id,
        index=request.index,
        completion=Completion(
            token_ids=np.array(token_ids, np.int32),
            logprobs=np.array(output.logprobs.logprobs, np.float32),
            versions=[
                VersionSpan(version=int(span.version), start=span.start, end=span.end)
                for span in output.weight_versions
            ],
            text=visible_text.of(token_ids),
            finish_reason=output.finish_reason,
            cached_tokens=result.num_cached_tokens or 0,
            routed_experts=output.routed_experts,
        ),
    )
