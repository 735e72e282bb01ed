"""`Seam`: where a completion goes on after tokens of another engine; its end may lie before, or begin before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from rlframe.types import FinishReason

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM

    from rlframe.rollout.requests import Request


class Seam:
    """The tokens of other engines as vLLM would know them, had it sampled them itself."""

    def __init__(self, llm: AsyncLLM, request: Request) -> None:
        """`request`: with at least one given token."""
        assert request.given is not None
        self.llm = llm
        self.request = request
        self.token_ids: list[int] = request.given.token_ids.tolist()
        self.parameters = request.parameters()
        self.detokenizer: Any = None  # has seen the prompt and the given tokens; None: no stop texts
        self.stopped = self._end_token() or self._stop_text()

    @property
    def finish_reason(self) -> FinishReason | None:
        """The reason for which the completion has ended already; None: it goes on."""
        if self.stopped:
            return "stop"
        return "length" if len(self.token_ids) >= self.request.sampling.max_tokens else None

    def move_into(self, state: Any) -> None:
        """Lets vLLM find stop texts that begin before the seam, by its state of the request before the first token."""
        if self.detokenizer is None:
            return
        if hasattr(self.detokenizer, "prompt_len"):  # a detokenizer in Python counts the prompt's tokens as well
            self.detokenizer.prompt_len = len(self.detokenizer.token_ids)
        else:
            self.detokenizer.token_ids.clear()
        state.detokenizer = self.detokenizer

    def _end_token(self) -> bool:
        """True if the last token ends a completion."""
        processor: Any = self.llm.input_processor
        self.parameters.update_from_generation_config(
            processor.generation_config_fields, processor.renderer.get_eos_token_id()
        )
        return self.token_ids[-1] in self.parameters.all_stop_token_ids

    def _stop_text(self) -> bool:
        """True if the tokens contain a stop text."""
        if not self.request.sampling.stop:
            return False
        from vllm.v1.engine.detokenizer import IncrementalDetokenizer

        prompt: Any = SimpleNamespace(
            request_id=self.request.prompt.id,
            prompt_token_ids=self.request.prompt.token_ids,
            prompt_embeds=None,
            sampling_params=self.parameters,
        )
        self.detokenizer = IncrementalDetokenizer.from_new_request(self.llm.get_tokenizer(), prompt)
        return self.detokenizer.update(self.token_ids, False) is not None
