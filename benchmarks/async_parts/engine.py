"""`TimedEngine`: an engine that takes time and computes nothing, behind the interface of `rollout/vllm.py`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from rlframe.rollout.messages import EngineProgress
from rlframe.training import Loaded
from rlframe.types import Completion, Prompt, SampledCompletion, Sampling, VersionSpan

LONGEST = 1 << 16
TOKENS = np.zeros(LONGEST, np.int32)
LOGPROBS = np.full(LONGEST, -1.0, np.float32)
TEXT = "timed"
ROUNDING = 1e-6  # of a token, from sums of times


class Request:
    """A completion that waits for a slot, then samples."""

    __slots__ = ("arrivals", "index", "prompt_id", "start_s", "timer", "tokens")

    def __init__(self, prompt_id: str, index: int, tokens: int, arrivals: asyncio.Queue[SampledCompletion]) -> None:
        self.prompt_id = prompt_id
        self.index = index
        self.tokens = tokens
        self.arrivals = arrivals
        self.start_s = 0.0  # by the engine's sampling time
        self.timer: asyncio.TimerHandle | None = None  # None: waits for a slot


class TimedEngine:
    """Samples `slots` completions at a time, first come first served, each at `token_s` seconds a token.

    A prompt's `extra["lengths"]` are the tokens of its completions. While weights load, sampling pauses. A completion
    across a load has a span for each version: with 10 tokens a second, a load after 0.5 s and 12 tokens,

        versions [(0, 0, 5), (1, 5, 12)]

    Subclass it to model an engine of your own: `token_seconds` may depend on the number of busy slots, for example.
    """

    def __init__(self, name: str, *, slots: int, token_s: float, load_s: float) -> None:
        """`load_s`: pause of a load."""
        self.name = name
        self.slots = slots
        self.token_s = token_s
        self.load_s = load_s
        self.loading = False
        self.busy_slot_s = 0.0
        self._sampled_slot_s = 0.0
        self._clock_s = 0.0  # time of the last look, by the clock
        self._sampling_s = 0.0  # the same time without pauses
        self._resume_s = 0.0  # end of the last load, by the clock
        self._loads = [(0.0, 0)]  # start by the engine's sampling time, and policy version
        self._queue: deque[Request] = deque()
        self._running: set[Request] = set()

    async def generate(
        self, prompts: list[Prompt], sampling: Sampling, indices: dict[str, list[int]] | None = None
    ) -> AsyncIterator[SampledCompletion]:
        """Every prompt's completions, each as it ends. `indices`: prompt id -> completions to sample; None: all."""
        arrivals: asyncio.Queue[SampledCompletion] = asyncio.Queue()
        requests = [
            Request(prompt.id, index, prompt.extra["lengths"][index], arrivals)
            for prompt in prompts
            for index in (range(sampling.completions) if indices is None else indices[prompt.id])
        ]
        self._queue.extend(requests)
        self._fill()
        try:
            for _ in requests:
                yield await arrivals.get()
        finally:
            self._abort(requests)

    async def load(self, snapshot: Any) -> Loaded:
        """Pauses for `load_s`, then samples with the snapshot's version."""
        self._look()
        self.loading = True
        self._resume_s = self._clock_s + self.load_s
        if self.load_s:
            await asyncio.sleep(self.load_s)
        self._look()
        self.loading = False
        self._loads.append((self._sampling_s, snapshot.version))
        return Loaded(stall_s=self.load_s, mismatched_tensors=[])

    async def progress(self) -> EngineProgress:
        self._look()
        return EngineProgress(
            tokens=int(self._sampled_slot_s / self.token_s + ROUNDING),
            version=self._loads[-1][1],
            loading=self.loading,
            busy_slot_s=self.busy_slot_s,
            recomputed_tokens=0,
        )

    def _fill(self) -> None:
        """Gives free slots to the requests that wait longest."""
        if not self._queue or len(self._running) == self.slots:
            return
        self._look()
        loop = asyncio.get_running_loop()
        while self._queue and len(self._running) < self.slots:
            request = self._queue.popleft()
            request.start_s = self._sampling_s
            request.timer = loop.call_later(request.tokens * self.token_s, self._end, request)
            self._running.add(request)

    def _end(self, request: Request) -> None:
        self._look()
        rest_s = request.start_s + request.tokens * self.token_s - self._sampling_s
        if rest_s > ROUNDING * self.token_s:  # a load paused the request
            delay_s = max(self._resume_s - self._clock_s, 0.0) + rest_s
            request.timer = asyncio.get_running_loop().call_later(delay_s, self._end, request)
            return
        self._running.remove(request)
        completion = Completion(
            token_ids=TOKENS[: request.tokens],
            logprobs=LOGPROBS[: request.tokens],
            versions=self._spans(request),
            text=TEXT,
            finish_reason="stop",
        )
        sampled = SampledCompletion(prompt_id=request.prompt_id, index=request.index, completion=completion)
        request.arrivals.put_nowait(sampled)
        self._fill()

    def _spans(self, request: Request) -> list[VersionSpan]:
        """The policy versions of a request that ends now."""
        spans: list[VersionSpan] = []
        end = request.tokens
        for load_s, version in reversed(self._loads):
            start = max(int((load_s - request.start_s) / self.token_s + ROUNDING), 0)
            if start < end:
                spans.insert(0, VersionSpan(version=version, start=start, end=end))
                end = start
            if start == 0:
                break
        return spans

    def _abort(self, requests: list[Request]) -> None:
        """Takes unfinished requests out of slots and queue."""
        unfinished = [request for request in requests if request.timer is None or request in self._running]
        if not unfinished:
            return
        self._look()
        for request in unfinished:
            if request.timer is None:
                self._queue.remove(request)
            else:
                request.timer.cancel()
                self._running.remove(request)
        self._fill()

    def _look(self) -> None:
        """Adds the time since the last look to the sums."""
        now = asyncio.get_running_loop().time()
        passed_s, self._clock_s = now - self._clock_s, now
        busy = len(self._running)
        self.busy_slot_s += busy * passed_s
        if not self.loading:
            self._sampling_s += passed_s
            self._sampled_slot_s += busy * passed_s
