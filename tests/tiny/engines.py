"""Calls of engine actors, one at a time and without a pool."""

from __future__ import annotations

import asyncio
from typing import Any

from rlframe.types import Prompt, SampledCompletion, SampledTokens, Sampling


async def sample(
    handle: Any,
    prompts: list[Prompt],
    sampling: Sampling,
    indices: dict[str, list[int]] | None = None,
    prefixes: dict[str, dict[int, SampledTokens]] | None = None,
) -> list[SampledCompletion]:
    """Completions in the order of prompts and of each group."""
    order = {prompt.id: place for place, prompt in enumerate(prompts)}
    named: dict[str, Any] = {} if prefixes is None else {"call": "c", "prefixes": prefixes}
    stream = handle.generate.options(num_returns="streaming").remote(prompts, sampling, indices, **named)
    samples = [await reference async for reference in stream]
    return sorted(samples, key=lambda sampled: (order[sampled.prompt_id], sampled.index))


async def sample_through(
    handle: Any, snapshot: Any, *groups: tuple[Any, ...], first_tokens: int = 20
) -> list[list[SampledCompletion]]:
    """Groups that the engine has received, in order, when it loads a snapshot after the first tokens.

    `groups`: a prompt, and the other arguments of `sample`.
    """
    running = [asyncio.ensure_future(sample(handle, [prompt], *others)) for prompt, *others in groups]
    start = seen = await handle.progress.remote()
    while seen.tokens < start.tokens + first_tokens:
        seen = await handle.progress.remote()
    await handle.load.remote(snapshot)
    return [await group for group in running]
