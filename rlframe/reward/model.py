"""A preference model: a Hugging Face sequence classifier with one output scores the conversation."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from rlframe.model.base_model import locate
from rlframe.reward.base import Reward
from rlframe.reward.thoughts import Show, shown
from rlframe.types import Completion, Message, Prompt, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GATHER_S = 0.005  # for concurrent calls to join the first one's forward pass
LOAD_S = 900.0  # for weights from a slow, cold file system

Forward = Callable[[list[list[int]]], list[float]]  # token ids, [B] sequences -> [B] scores


class PreferenceModel(Reward):
    """(output - mean) / std of a model trained on preferences (Ouyang et al., 2022, arXiv:2203.02155).

    The folder has `architectures: [...ForSequenceClassification]`, one label, a chat template and a padding token.
    Concurrent calls share forward passes. Of a conversation longer than `max_tokens` the first token (the
    beginning-of-text mark that attention leans on) and the last ones are scored, and the verdict's detail says so.
    What shares a pass moves a score by its dtype's rounding: on a tiny model whose scores spread by 1, 4e-6 in
    float32 and 0.02 in bfloat16.
    """

    name: Literal["model"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is sound)
    path: str
    dtype: Literal["float32", "bfloat16", "float16"]
    device: Literal["auto", "cpu", "cuda"]  # auto: cuda where there is one
    show: Show
    max_tokens: int = Field(ge=2)  # of prompt and completion
    max_batch: int = Field(gt=0)  # sequences of a forward pass
    max_batch_tokens: int = Field(gt=0)  # of a forward pass, padding included
    timeout_s: float = Field(gt=0)  # of a forward pass
    mean: float
    std: float = Field(gt=0)

    _scorer: Future[Scorer] | None = PrivateAttr(default=None)
    _batcher: Batcher | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _one_fits(self) -> PreferenceModel:
        if self.max_tokens > self.max_batch_tokens:
            raise ValueError(f"max_tokens {self.max_tokens} is more than max_batch_tokens {self.max_batch_tokens}")
        return self

    def start(self) -> None:
        """Begins to load. Raises ValueError where the folder is missing or holds no classifier."""
        folder = locate(self.path)
        architectures = json.loads((folder / "config.json").read_text()).get("architectures") if folder.is_dir() else []
        if not any(name.endswith("ForSequenceClassification") for name in architectures or []):
            raise ValueError(f"{self.path}: architectures {architectures}, none of them ...ForSequenceClassification")
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="preference-model")
        self._scorer = scorer = thread.submit(Scorer, str(folder), self.dtype, self.device, self.max_tokens)
        self._batcher = Batcher(
            lambda batch: scorer.result().forward(batch),
            thread,
            max_batch=self.max_batch,
            max_batch_tokens=self.max_batch_tokens,
            timeout_s=self.timeout_s,
        )

    def close(self) -> None:
        if self._batcher is not None:
            self._batcher.thread.shutdown(wait=False)  # a pass that waits still runs: its callers wait for it
        self._scorer = self._batcher = None

    async def __call__(self, prompt: Prompt, completion: Completion) -> Verdict:  # pyright: ignore[reportIncompatibleMethodOverride]
        started = time.perf_counter()
        loading, batcher = self._scorer, self._batcher
        assert loading is not None and batcher is not None, "a model is started before it is asked"
        if error := await failure(asyncio.wrap_future(loading), LOAD_S, f"loading {self.path}"):
            raise own(error)
        scorer = loading.result()
        token_ids, length = scorer.tokenize(prompt.messages, shown(completion.text, self.show))
        output = await batcher.score(token_ids)
        kept = len(token_ids)
        detail = "" if kept == length else f"truncated: of {length} tokens the first and the last {kept - 1}"
        return Verdict(
            score=(output - self.mean) / self.std,
            status="scored",
            seconds=time.perf_counter() - started,
            detail=detail,
        )


class Scorer:
    """The model and its tokenizer. Blocks; one thread at a time."""

    def __init__(self, folder: str, dtype: str, device: str, max_tokens: int) -> None:
        """Raises ValueError saying what the folder lacks."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.max_tokens = max_tokens
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, dtype), output_loading_info=True
        )
        model, info = loaded
        self.model: PreTrainedModel = model.to(self.device).eval()
        config = self.model.config.get_text_config()
        config.use_cache = False  # one pass a sequence: nothing would read it
        # Both the model, which scores the last token that is none, and we pad with this one.
        self.pad = config.pad_token_id if config.pad_token_id is not None else self.tokenizer.pad_token_id
        config.pad_token_id = self.pad
        positions = getattr(config, "max_position_embeddings", max_tokens)
        problems = {
            f"its weights lack {sorted(info['missing_keys'])}, which would be random": info["missing_keys"],
            f"it has {self.model.config.num_labels} labels, not 1": self.model.config.num_labels != 1,
            "its tokenizer has no chat template": not self.tokenizer.chat_template,
            "neither its config nor its tokenizer has a padding token": self.pad is None,
            f"max_tokens {max_tokens} is more than its {positions} positions": max_tokens > positions,
        }
        if found := [problem for problem, is_so in problems.items() if is_so]:
            raise ValueError(f"preference model {folder}: {'; '.join(found)}")

    def tokenize(self, messages: list[Message], completion: str) -> tuple[list[int], int]:
        """Token ids of the conversation, at most max_tokens, and how many it has in full."""
        conversation = [*messages, {"role": "assistant", "content": completion}]
        token_ids: Any = self.tokenizer.apply_chat_template(conversation, return_dict=False)
        if len(token_ids) <= self.max_tokens:
            return token_ids, len(token_ids)
        return token_ids[:1] + token_ids[1 - self.max_tokens :], len(token_ids)

    def forward(self, batch: list[list[int]]) -> list[float]:
        """One forward pass. Padding is on the right: on the left it would move positions, and with them scores."""
        import torch

        longest = max(map(len, batch))
        token_ids = torch.tensor([ids + [self.pad] * (longest - len(ids)) for ids in batch])  # [B, L]
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in batch])  # [B, L]
        with torch.inference_mode():
            output = self.model(input_ids=token_ids.to(self.device), attention_mask=mask.to(self.device))
        return output.logits[:, 0].float().tolist()


class Batcher:
    """Gathers concurrent calls into forward passes over sequences of similar lengths. For one event loop."""

    def __init__(
        self, forward: Forward, thread: ThreadPoolExecutor, *, max_batch: int, max_batch_tokens: int, timeout_s: float
    ) -> None:
        self.forward, self.thread = forward, thread
        self.max_batch, self.max_batch_tokens, self.timeout_s = max_batch, max_batch_tokens, timeout_s
        self._waiting: list[tuple[list[int], asyncio.Future[float]]] = []
        self._drain: asyncio.Task[None] | None = None

    async def score(self, token_ids: list[int]) -> float:
        """Raises RuntimeError with what its forward pass raised, or where that took longer than timeout_s."""
        score = asyncio.get_running_loop().create_future()
        self._waiting.append((token_ids, score))
        if self._drain is None or self._drain.done():
            self._drain = asyncio.create_task(self._drain_waiting())
        return await score

    async def _drain_waiting(self) -> None:
        await asyncio.sleep(GATHER_S)
        while self._waiting:  # whoever comes during a pass joins the next round, with no further wait
            waiting, self._waiting = self._waiting, []
            for indices in passes([len(ids) for ids, _ in waiting], self.max_batch, self.max_batch_tokens):
                await self._pass([waiting[index] for index in indices])

    async def _pass(self, batch: list[tuple[list[int], asyncio.Future[float]]]) -> None:
        try:
            running = asyncio.get_running_loop().run_in_executor(self.thread, self.forward, [ids for ids, _ in batch])
        except RuntimeError as closed:
            results: list[Any] = [own(closed) for _ in batch]
        else:
            error = await failure(running, self.timeout_s, f"a forward pass of {len(batch)} sequences")
            results = [own(error) for _ in batch] if error else running.result()
        for (_, score), result in zip(batch, results, strict=True):
            if score.done():  # its caller gave up
                continue
            if isinstance(result, Exception):
                score.set_exception(result)
            else:
                score.set_result(result)


def passes(lengths: list[int], max_batch: int, max_batch_tokens: int) -> list[list[int]]:
    """Indices of each forward pass, by ascending length; a pass as large as its longest sequence times their number.

    >>> passes([5, 2, 3, 9], max_batch=3, max_batch_tokens=10)
    [[1, 2], [0], [3]]
    """
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        size = len(found[-1]) + 1 if found else 0
        if found and size <= max_batch and size * lengths[index] <= max_batch_tokens:
            found[-1].append(index)
        else:
            found.append([index])
    return found


async def failure(future: asyncio.Future[Any], seconds: float, what: str) -> BaseException | None:
    """What the future raises, or a TimeoutError that names what took too long; None: it has its result."""
    done, _ = await asyncio.wait([future], timeout=seconds)
    if not done:
        future.cancel()
        return TimeoutError(f"{what} took more than {seconds:g} s")
    return future.exception()


def own(error: BaseException) -> RuntimeError:
    """One caller's copy. An exception that many raise grows by a piece of traceback each time."""
    return RuntimeError(f"{type(error).__name__}: {error}").with_traceback(error.__traceback__)
