"""Preference model: a Hugging Face sequence classifier with one output scores the conversation."""

from __future__ import annotations

import asyncio
import json
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from rlframe.actors.batching import Batcher, error_copy, error_of
from rlframe.answers.thoughts import THINK_TAGS, Show, check_opened, shown
from rlframe.model.base_model import absolute, locate, prepare
from rlframe.model.checkpoint_names import is_classifier
from rlframe.model.classifier import Classifier
from rlframe.reward.base import Reward
from rlframe.types import Completion, Prompt, Verdict

LOAD_S = 900.0  # time to load weights from a slow, cold file system


class ClassifierReward(Reward):
    """A reward by a sequence classifier with one output.

    The folder has `architectures: [...ForSequenceClassification]`, one label, a chat template and a padding token.
    Concurrent calls share forward passes. The batch moves a score by its dtype's rounding: on a tiny model whose scores
    spread by 1, by 4e-6 in float32 and 0.02 in bfloat16.
    """

    path: str
    dtype: Literal["float32", "bfloat16", "float16"]
    device: Literal["auto", "cpu", "cuda"]  # auto: cuda if available
    max_tokens: int = Field(ge=2)  # of prompt and completion
    max_batch: int = Field(gt=0)  # sequences of a forward pass
    max_batch_tokens: int = Field(gt=0)  # of a forward pass, with padding
    timeout_s: float = Field(gt=0)  # for a forward pass
    mean: float
    std: float = Field(gt=0)

    _loading: Future[Classifier] | None = PrivateAttr(default=None)
    _batcher: Batcher | None = PrivateAttr(default=None)

    @field_validator("path")
    @classmethod
    def _is_the_same_on_every_machine(cls, path: str) -> str:
        return absolute(path)

    @model_validator(mode="after")
    def _sequence_fits_a_pass(self) -> Self:
        if self.max_tokens > self.max_batch_tokens:
            raise ValueError(f"max_tokens {self.max_tokens} is more than max_batch_tokens {self.max_batch_tokens}")
        return self

    def start(self) -> None:
        """Starts to load the model. Raises ValueError for a folder that is missing or holds no classifier."""
        folder = locate(self.path)
        architectures = json.loads((folder / "config.json").read_text()).get("architectures") if folder.is_dir() else []
        if not is_classifier(architectures):
            raise ValueError(f"{self.path}: architectures {architectures}, none of them ...ForSequenceClassification")
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="preference-model")
        self._loading = loading = thread.submit(
            lambda: Classifier(str(prepare(self.path)), self.dtype, self.device, self.max_tokens)
        )
        self._batcher = Batcher(
            lambda batch: loading.result().forward(batch),
            thread,
            max_batch=self.max_batch,
            max_batch_tokens=self.max_batch_tokens,
            timeout_s=self.timeout_s,
        )

    async def ready(self) -> None:
        await self.loaded()

    def close(self) -> None:
        if self._batcher is not None:
            self._batcher.thread.shutdown(wait=False)  # a queued pass still runs, since calls wait for it
        self._loading = self._batcher = None

    async def loaded(self) -> tuple[Classifier, Batcher]:
        """The model, once it is loaded, and its forward passes. Raises the error of the load."""
        loading, batcher = self._loading, self._batcher
        assert loading is not None and batcher is not None, "a model is started before it is asked"
        if error := await error_of(asyncio.wrap_future(loading), LOAD_S, f"loading {self.path}"):
            raise error_copy(error)
        return loading.result(), batcher


class PreferenceModel(ClassifierReward):
    """(output - mean) / std of a model trained on preferences (Ouyang et al., 2022, arXiv:2203.02155).

    Of a conversation longer than `max_tokens`, the first token (the beginning-of-text mark that attention leans on) and
    the last tokens are scored, and the verdict's detail says so.
    """

    name: Literal["model"]
    show: Show
    opened: bool  # the prompt ends with <think>, so completions start inside the thoughts

    def check_prompt(self, text: str) -> None:
        if self.show == "answer":
            check_opened(text, "<think>", self.opened)

    def tags(self) -> list[str]:
        return THINK_TAGS if self.show == "answer" else []

    async def __call__(self, prompt: Prompt, completion: Completion) -> Verdict:
        started = time.perf_counter()
        classifier, batcher = await self.loaded()
        token_ids, length = classifier.tokenize(prompt.messages, shown(completion.text, self.show, opened=self.opened))
        output = await batcher.score(token_ids)
        truncated = f"truncated: of {length} tokens the first and the last {len(token_ids) - 1}"
        detail = truncated if len(token_ids) < length else ""
        score = (output - self.mean) / self.std
        return Verdict(score=score, status="scored", seconds=time.perf_counter() - started, detail=detail)
