"""A real engine: seeds, texts and the prefix cache."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from rlframe.cluster import start as cluster
from rlframe.errors import RunFailed
from rlframe.types import Completion, Prompt, Sampling
from tests.rollout.conftest import SAMPLING, engine, prompt
from tests.tiny import engines
from tests.tiny.groups import plain

FREE = Sampling(completions=16, max_tokens=60, temperature=1.0, seed=5)  # with no end but the model's own
PROMPTS = [prompt("a", "What is 2 + 3?"), prompt("b", "And 40 + 2, then?")]


def sample(actors: cluster.Actors, prompts: list[Prompt], sampling: Sampling = SAMPLING) -> list[Completion]:
    """In the order of prompts and of each group."""
    return [sampled.completion for sampled in asyncio.run(engines.sample(engine(actors), prompts, sampling))]


def test_same_prompts_seed_and_weights_give_the_same_completions(actors: cluster.Actors) -> None:
    first, second = ([replace(completion, cached_tokens=0) for completion in sample(actors, PROMPTS)] for _ in range(2))
    assert plain(first) == plain(second)
    assert len({tuple(completion.token_ids) for completion in first}) == 8


def test_a_completion_s_text_leaves_out_the_token_that_stops_it(actors: cluster.Actors, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    completions = sample(actors, PROMPTS, Sampling(completions=32, max_tokens=100, temperature=1.0, seed=3))
    assert {completion.finish_reason for completion in completions} == {"stop", "length"}
    for completion in completions:
        text_ids = completion.token_ids
        if completion.finish_reason == "stop":
            assert text_ids[-1] == tokenizer.eos_token_id
            text_ids = text_ids[:-1]
        assert completion.text == tokenizer.decode(text_ids, skip_special_tokens=True)
        assert len(completion.logprobs) == len(completion.token_ids) and max(completion.logprobs) <= 0


def test_a_group_computes_its_prompt_once_in_blocks_of_32_tokens(actors: cluster.Actors) -> None:
    completions = sample(actors, [prompt("long", "What is 1 + 1? " * 5)])  # 75 tokens
    assert sorted(completion.cached_tokens for completion in completions) == [0, 64, 64, 64]


def test_an_engine_that_wakes_has_forgotten_keys_and_values(actors: cluster.Actors) -> None:
    prompts = [prompt("long", "What is 3 + 3? " * 5)]
    before = sample(actors, prompts)
    assert [completion.cached_tokens for completion in sample(actors, prompts)] == [64] * 4
    actors.rollouts.sleep()
    with pytest.raises(RuntimeError, match=r"rollout-\d sleeps, because the learner has its GPU"):
        sample(actors, prompts)
    actors.rollouts.wake("weights")
    with pytest.raises(RuntimeError, match=r"rollout-\d sleeps"):
        sample(actors, prompts)
    actors.rollouts.wake("kv_cache")
    after = sample(actors, prompts)
    assert min(completion.cached_tokens for completion in after) == 0
    assert plain(after) == plain(before)  # on a CPU weights stay


def test_an_engine_with_completions_in_flight_refuses_to_sleep(actors: cluster.Actors) -> None:
    async def sleep_meanwhile() -> None:
        start = await engine(actors).progress.remote()
        running = asyncio.ensure_future(engines.sample(engine(actors), PROMPTS, replace(FREE, max_tokens=380)))
        while (await engine(actors).progress.remote()).tokens == start.tokens:
            pass
        try:
            await asyncio.to_thread(actors.rollouts.sleep)
        finally:
            await running

    with pytest.raises(RunFailed, match=r"while rollout-\d has \d+ completions in flight; take every sampled group"):
        asyncio.run(sleep_meanwhile())
    sample(actors, PROMPTS)


def test_a_stop_text_ends_a_completion_and_stays_in_it(actors: cluster.Actors) -> None:
    free = sample(actors, PROMPTS, FREE)
    text = next(word for completion in free for word in re.findall(r"[!-~]{2}", completion.text[4:]))
    stopped = sample(actors, PROMPTS, replace(FREE, stop=["never written", text]))
    assert any(completion.finish_reason == "stop" and text in completion.text for completion in stopped)
    for whole, cut in zip(free, stopped, strict=True):
        assert (text in whole.text) == (text in cut.text)
        length = len(cut.token_ids)
        assert cut.token_ids.tolist() == whole.token_ids[:length].tolist()
        assert cut.logprobs.tolist() == pytest.approx(whole.logprobs[:length].tolist(), abs=1e-4)
        assert [(span.start, span.end) for span in cut.versions] == [(0, length)]
        if text in whole.text:
            assert cut.finish_reason == "stop" and cut.text == whole.text.partition(text)[0] + text
        else:
            assert (length, cut.finish_reason) == (len(whole.token_ids), whole.finish_reason)


def test_a_stop_token_ends_a_completion_and_stays_in_it(actors: cluster.Actors, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    free = sample(actors, PROMPTS, FREE)
    stop = int(free[0].token_ids[5])
    for whole, cut in zip(free, sample(actors, PROMPTS, replace(FREE, stop_token_ids=[stop])), strict=True):
        token_ids = whole.token_ids.tolist()
        length = token_ids.index(stop) + 1 if stop in token_ids else len(token_ids)
        assert cut.token_ids.tolist() == token_ids[:length] and len(cut.logprobs) == length
        assert cut.finish_reason == ("stop" if stop in token_ids else whole.finish_reason)
        if stop in token_ids:
            assert cut.text == tokenizer.decode(token_ids[:length], skip_special_tokens=True)


def tokens(completions: list[Completion]) -> list[list[int]]:
    return [completion.token_ids.tolist() for completion in completions]
