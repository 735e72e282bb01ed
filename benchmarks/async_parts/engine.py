"""`TimedEngine`: an engine that takes time and computes nothing, behind the interface of `rollout/vllm.py`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from rlframe.rollout.messages import EngineProgress, Probe
from rlframe.rollout.partials import Partials
from rlframe.training import Loaded
from rlframe.types import Completion, Prompt, SampledCompletion, SampledTokens, Sampling, VersionSpan, merged

LONGEST = 1 << 16
TOKENS = np.arange(LONGEST, dtype=np.int32)  # each token is its place in the completion, so a lost one is seen
LOGPROBS = np.full(LONGEST, -1.0, np.float32)
TEXT = "timed"
ROUNDING = 1e-6  # of a token, from sums of times


class Request:
    """A completion that waits for a slot, then samples."""

    __slots__ = ("arrivals", "asked", "given", "over", "start_s", "timer", "tokens", "told")

    def __init__(
        self,
        asked: tuple[str, str, int],
        tokens: int,
        given: SampledTokens | None,
        arrivals: asyncio.Queue[SampledCompletion | None],
    ) -> None:
        self.asked = asked  # name of the call, prompt id, index in the group
        self.tokens = tokens  # of the whole completion
        self.given = given  # its first tokens, from another engine
        self.arrivals = arrivals
        self.told = self.first  # tokens that a progress answer has told
        self.over = False  # finished, or given up
        self.start_s = 0.0  # by the engine's sampling time
        self.timer: asyncio.TimerHandle | None = None  # None: waits for a slot

    @property
    def first(self) -> int:
        """The first token that this engine samples."""
        return self.given.end if self.given else 0


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
        self.speed = 1.0  # seconds of sampling a second of the clock
        self.loading = False
        self.busy_slot_s = 0.0
        self._sampled_slot_s = 0.0
        self._clock_s = 0.0  # time of the last look, by the clock
        self._sampling_s = 0.0  # the same time without pauses
        self._resume_s = 0.0  # end of the last load, by the clock
        self._loads = [(0.0, 0)]  # start by the engine's sampling time, and policy version
        self._queue: deque[Request] = deque()
        self._running: dict[Request, None] = {}  # a set in the order of the start

    def __repr__(self) -> str:  # Ray's errors and logs name the actor by this
        return self.name

    def length(self, prompt: Prompt, index: int, sampling: Sampling, given: SampledTokens | None) -> int:
        """Tokens of a whole completion, of which `given` may be known."""
        return prompt.extra["lengths"][index]

    async def generate(
        self,
        prompts: list[Prompt],
        sampling: Sampling,
        indices: dict[str, list[int]] | None = None,
        prefixes: dict[str, dict[int, SampledTokens]] | None = None,
        call: str = "",
    ) -> AsyncIterator[SampledCompletion]:
        """Every prompt's completions, each as it ends. `indices`: prompt id -> completions to sample; None: all.

        `prefixes`: prompt id -> index -> first tokens, after which to go on. `call`: by which partials are told.
        """
        arrivals: asyncio.Queue[SampledCompletion | None] = asyncio.Queue()
        requests: list[Request] = []
        for prompt in prompts:
            for index in range(sampling.completions) if indices is None else indices[prompt.id]:
                given = (prefixes or {}).get(prompt.id, {}).get(index)
                tokens = self.length(prompt, index, sampling, given)
                requests.append(Request((call, prompt.id, index), tokens, given, arrivals))
        self._queue.extend(requests)
        self._fill()
        try:
            for _ in requests:
                if (sampled := await arrivals.get()) is None:
                    return
                yield sampled
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

    async def progress(self, with_partials: bool = False) -> EngineProgress:
        """`with_partials`: tells tokens of unfinished completions, each once."""
        self._look()
        return EngineProgress(
            tokens=int(self._sampled_slot_s / self.token_s + ROUNDING),
            version=self._loads[-1][1],
            loading=self.loading,
            busy_slot_s=self.busy_slot_s,
            recomputed_tokens=0,
            partials=self._new_tokens() if with_partials else None,
        )

    async def release(self) -> Partials | None:
        """Gives up all unfinished completions, and ends their calls -> all their tokens."""
        self._look()
        unfinished = [*self._running, *self._queue]
        parts = [(request.asked, part) for request in unfinished if (part := self._tokens(request)).end]
        self._abort(unfinished)
        for request in unfinished:
            request.arrivals.put_nowait(None)
        return Partials.of(parts) if parts else None

    async def probe(self, token_ids: list[int]) -> Probe:
        """Log-probabilities that depend on the tokens and the version only."""
        version = self._loads[-1][1]
        return Probe(version=version, logprobs=-np.float32(0.001) * np.array(token_ids[1:], np.float32) - version)

    def set_speed(self, speed: float) -> None:
        """Completions that run go on at the new speed; one that ends earlier by it may be told late."""
        self._look()
        self.speed = speed

    def _fill(self) -> None:
        """Gives free slots to the requests that wait longest."""
        if not self._queue or len(self._running) == self.slots:
            return
        self._look()
        loop = asyncio.get_running_loop()
        while self._queue and len(self._running) < self.slots:
            request = self._queue.popleft()
            request.start_s = self._sampling_s
            request.timer = loop.call_later(self._needed_s(request) / self.speed, self._end, request)
            self._running[request] = None

    def _needed_s(self, request: Request) -> float:
        """Seconds of sampling."""
        return max(request.tokens - request.first, 0) * self.token_s

    def _end(self, request: Request) -> None:
        self._look()
        rest_s = request.start_s + self._needed_s(request) - self._sampling_s
        if rest_s > ROUNDING * self.token_s:  # a load paused the request
            delay_s = max(self._resume_s - self._clock_s, 0.0) + rest_s / self.speed
            request.timer = asyncio.get_running_loop().call_later(delay_s, self._end, request)
            return
        self._sampled_slot_s += min(rest_s, 0.0)  # nothing is sampled between the last token and a late timer
        request.over = True
        del self._running[request]
        whole = self._tokens(request)
        completion = Completion(
            token_ids=whole.token_ids,
            logprobs=whole.logprobs,
            versions=whole.versions,
            text=TEXT,
            finish_reason="stop",
        )
        _, prompt_id, index = request.asked
        request.arrivals.put_nowait(SampledCompletion(prompt_id=prompt_id, index=index, completion=completion))
        self._fill()

    def _tokens(self, request: Request) -> SampledTokens:
        """All tokens of a request, as of now."""
        first, given = request.first, request.given
        passed = int((self._sampling_s - request.start_s) / self.token_s + ROUNDING) if request.timer else 0
        end = max(min(first + passed, request.tokens), first)
        tail = SampledTokens(
            start=first,
            token_ids=TOKENS[first:end],
            logprobs=LOGPROBS[first:end],
            versions=self._spans(request, end),
        )
        return SampledTokens.joined([given, tail]) if given else tail

    def _new_tokens(self) -> Partials | None:
        """Tokens that no answer has told."""
        parts: list[tuple[tuple[str, str, int], SampledTokens]] = []
        for request in self._running:
            tokens = self._tokens(request).since(request.told)
            if tokens.end > request.told:
                request.told = tokens.end
                parts.append((request.asked, tokens))
        return Partials.of(parts) if parts else None

    def _spans(self, request: Request, end: int) -> list[VersionSpan]:
        """The policy versions of the tokens that this engine has sampled, up to `end`."""
        spans: list[VersionSpan] = []
        first = request.first
        for load_s, version in reversed(self._loads):
            start = first + max(int((load_s - request.start_s) / self.token_s + ROUNDING), 0)
            if start < end:
                spans.insert(0, VersionSpan(version=version, start=start, end=end))
                end = start
            if start == first:
                break
        return merged(spans)

    def _abort(self, requests: list[Request]) -> None:
        """Takes unfinished requests out of slots and queue."""
        unfinished = [request for request in requests if not request.over]
        if not unfinished:
            return
        self._look()
        for request in unfinished:
            request.over = True
            if request.timer is None:
                self._queue.remove(request)
            else:
                request.timer.cancel()
                del self._running[request]
        self._fill()

    def _look(self) -> None:
        """Adds the time since the last look to the sums."""
        now = asyncio.get_running_loop().time()
        passed_s, self._clock_s = now - self._clock_s, now
        busy = len(self._running)
        self.busy_slot_s += busy * passed_s
        if not self.loading:
            self._sampling_s += passed_s * self.speed
            self._sampled_slot_s += busy * passed_s * self.speed
