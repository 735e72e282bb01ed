"""A real HTTP server for tests of the judge, with the answers that a test chooses."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from rlframe.reward.judge import Judge
from rlframe.types import Completion, Prompt, Verdict

KEY_ENV = "RLFRAME_TEST_JUDGE_KEY"
KEY = "right-key"
PROMPT = Prompt(
    id="p", messages=[{"role": "user", "content": "What is 2 + 3?"}], token_ids=[], reference="five", task="math"
)
TERM: dict[str, Any] = {
    "name": "judge",
    "weight": 1.0,
    "base_url": "http://127.0.0.1:9/v1",
    "model": "tiny",
    "key_env": None,
    "instruction": "Grade.\n{question}\n{reference}\n{answer}",
    "show": "all",
    "opened": False,
    "max_grade": 10,
    "max_reason_chars": 20,
    "request": {"temperature": 0.0},
    "timeout_s": 60.0,
    "attempts": 1,
    "max_concurrent": 16,
    "requests_per_minute": None,
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def completion(text: str) -> Completion:
    return Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop")


async def grade_all(judge: Judge, texts: list[str]) -> list[Verdict]:
    await asyncio.to_thread(judge.start)  # a worker too starts it on another thread, before the first call
    try:
        return await asyncio.gather(*[judge(PROMPT, completion(text)) for text in texts])
    finally:
        judge.close()


def grade(*texts: str, **changes: Any) -> list[Verdict]:
    return asyncio.run(grade_all(Judge(**TERM | changes), list(texts)))


@asynccontextmanager
async def endpoint(handler: Handler) -> AsyncIterator[tuple[str, web.AppRunner]]:
    """Starts an HTTP server on loopback -> its base URL and its runner."""

    async def post(request: web.Request) -> web.StreamResponse:
        return await handler(request)

    app = web.Application()
    app.router.add_post("/v1/chat/completions", post)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", runner
    finally:
        await runner.cleanup()


def reply(content: object) -> web.Response:
    return web.json_response({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]})


def graded(grade: object = 7, reason: str = "fine") -> web.Response:
    return reply(json.dumps({"reason": reason, "grade": grade}))


def grade_at(handler: Handler, *texts: str, **changes: Any) -> tuple[list[Verdict], float]:
    """Grades texts with an endpoint in the same event loop -> verdicts, and seconds for all of them."""

    async def run() -> tuple[list[Verdict], float]:
        async with endpoint(handler) as (url, _):
            started = time.monotonic()
            verdicts = await grade_all(Judge(**TERM | {"base_url": url} | changes), list(texts))
            return verdicts, time.monotonic() - started

    return asyncio.run(run())


class Script:
    """Answers the n-th request with the n-th step, later requests with the last; records times and requests."""

    def __init__(self, *steps: Callable[[], web.Response]) -> None:
        self.steps, self.times, self.requests, self.headers = steps, [], [], []

    async def __call__(self, request: web.Request) -> web.Response:
        self.times.append(time.monotonic())
        self.requests.append(await request.json())
        self.headers.append(request.headers)
        return self.steps[min(len(self.times), len(self.steps)) - 1]()
