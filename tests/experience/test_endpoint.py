"""Completions of an OpenAI-compatible endpoint: a real HTTP server that fails sometimes, and real rewards."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from rlframe.actors.background import Background
from rlframe.actors.chat import ChatClient
from rlframe.errors import RunFailed
from rlframe.experience.endpoint import EndpointScorer, Reply
from rlframe.types import Prompt, Sampling, ScoredGroup
from tests.tiny.endpoint import Handler, endpoint
from tests.tiny.episodes import TinyJudge

SAMPLING = Sampling(completions=2, max_tokens=8, temperature=0.5, seed=0, top_k=20)


def prompt(name: str) -> Prompt:
    return Prompt(
        id=f"{name}@0", messages=[{"role": "user", "content": name}], token_ids=[], reference="5", task="math"
    )


def answer(finish_reason: str = "stop", tokens: int = 3, **message: Any) -> web.Response:
    choice = {"message": {"role": "assistant", "content": None} | message, "finish_reason": finish_reason}
    return web.json_response({"choices": [choice], "usage": {"completion_tokens": tokens}})


def scored(
    handler: Handler, names: list[str], warn: Callable[[str], None] = print, attempts: int = 4, **request: Any
) -> tuple[list[ScoredGroup], list[int]]:
    """The groups of prompts, and their tokens. Completions that end in 1 are right."""
    background = Background("draw", stall_timeout_s=60)

    async def score() -> tuple[list[ScoredGroup], list[int]]:
        async with endpoint(handler) as (url, _):
            limits = {"timeout_s": 60.0, "attempts": attempts, "max_concurrent": 4, "requests_per_minute": None}
            client = ChatClient(url, "none", **limits)
            scorer = EndpointScorer(client, "big", request, TinyJudge().pool(), background, warn=warn)
            future = scorer.begin([prompt(name) for name in names], SAMPLING)
            groups = await asyncio.to_thread(scorer.finish, future)
            return groups, [scorer.tokens(group) for group in groups]

    try:
        return asyncio.run(score())
    finally:
        background.close()


def test_an_endpoint_that_fails_sometimes_loses_no_completion():
    tries: Counter[int] = Counter()  # by the request's seed

    async def fails_at_first(request: web.Request) -> web.Response:
        body = await request.json()
        tries[body["seed"]] += 1
        if tries[body["seed"]] == 1:
            return web.Response(status=[429, 503][len(tries) % 2], headers={"retry-after-ms": "20"})
        return answer(content=f"{body['messages'][0]['content']}/1")

    groups, tokens = scored(fails_at_first, ["a", "b", "c"])
    assert [[completion.text for completion in group.group.completions] for group in groups] == [
        ["a/1", "a/1"],
        ["b/1", "b/1"],
        ["c/1", "c/1"],
    ]
    assert [group.rewards for group in groups] == [[1.0, 1.0]] * 3 and tokens == [6, 6, 6]
    assert sorted(tries.values()) == [2] * 6  # a seed of its own for each completion
    assert groups[0].lengths == [0, 0] and groups[0].group.prompt.id == "a@0"


def test_a_prompt_that_the_endpoint_refuses_is_given_up_and_named():
    warnings: list[str] = []

    async def refuses_b(request: web.Request) -> web.Response:
        name = (await request.json())["messages"][0]["content"]
        if name == "b":
            return web.json_response({"error": {"message": "flagged"}}, status=400)
        return answer("content_filter", content="") if name == "c" else answer(content=f"{name}/0")

    groups, _ = scored(refuses_b, ["a", "b", "c", "d"], warnings.append)
    assert [group.group.prompt.id for group in groups] == ["a@0", "d@0"]
    refused, filtered = sorted(warnings)  # the endpoint answers both at once, in either order
    assert "b@0 is given up: completion 0: " in refused and "flagged" in refused
    assert "c@0 is given up: completion 0: " in filtered and "content_filter" in filtered


def test_thoughts_of_a_reasoning_server_get_their_tags_back():
    replies = {
        "both": answer(reasoning_content="2 + 3", content="5"),
        "vllm": answer(reasoning="2 + 3\n", content="\n5"),
        "cut": answer("length", reasoning_content="2 + 3", content=""),
        "plain": answer(content="5", reasoning_content=None),
    }

    async def reasons(request: web.Request) -> web.Response:
        reply = replies[(await request.json())["messages"][0]["content"]]
        return web.Response(body=reply.body, content_type="application/json")

    groups, _ = scored(reasons, list(replies))
    texts = [group.group.completions[0].text for group in groups]
    assert texts == ["<think>2 + 3</think>5", "<think>2 + 3\n</think>\n5", "<think>2 + 3", "5"]
    assert [group.finish_reasons[0] for group in groups] == ["stop", "stop", "length", "stop"]


def test_nulls_of_a_reply_are_fields_left_out():
    message = {"content": "5", "reasoning_content": None, "reasoning": "2 + 3"}
    choices = [{"message": message, "finish_reason": "stop"}]
    for usage in ({"usage": {"completion_tokens": None}}, {"usage": None}, {}):
        reply = Reply.model_validate({"choices": choices} | usage)
        assert (reply.text, reply.tokens) == ("<think>2 + 3</think>5", None)


def test_fields_of_a_request_are_the_sampling_then_the_users_own():
    seen: list[dict[str, Any]] = []

    async def keeps(request: web.Request) -> web.Response:
        seen.append(json.loads(await request.text()))
        return answer(content="a/1")

    scored(keeps, ["a"], max_tokens=None, max_completion_tokens=9)
    fields = {key: value for key, value in seen[0].items() if key not in ("seed", "messages")}
    assert fields == {"model": "big", "temperature": 0.5, "top_p": 1.0, "top_k": 20, "max_completion_tokens": 9}


@pytest.mark.parametrize("status", [401, 404])
def test_a_wrong_key_or_model_ends_the_draw_at_once(status: int):
    async def refuses(_: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "no such thing"}}, status=status)

    with pytest.raises(RunFailed, match=r"draw\.endpoint: model 'big' does not answer: .*no such thing"):
        scored(refuses, ["a"])
