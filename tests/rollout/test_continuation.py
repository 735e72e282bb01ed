"""A real engine goes on after the tokens of another, tells tokens before they are whole, and gives completions back."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from transformers import AutoTokenizer

from rlframe.cluster import start as cluster
from rlframe.experience.scoring import Scorer
from rlframe.rollout.messages import EngineProgress
from rlframe.types import Completion, Prompt, SampledCompletion, SampledTokens, Sampling
from tests.rollout.conftest import engine, prompt
from tests.tiny.engines import sample_through

FREE = Sampling(completions=8, max_tokens=60, temperature=1.0, seed=5)
GREEDY = replace(FREE, completions=1, temperature=0.0)
PROMPT = prompt("a", "What is 2 + 3?")


async def stream(
    handle: Any, asked: Prompt, sampling: Sampling, prefixes: dict[int, SampledTokens] | None = None, call: str = "c"
) -> list[Completion]:
    """Completions of a prompt in the order of the group, or those of `prefixes`."""
    named: dict[str, Any] = {"call": call}
    if prefixes is not None:
        named |= {"indices": {asked.id: list(prefixes)}, "prefixes": {asked.id: prefixes}}
    answers = handle.generate.options(num_returns="streaming").remote([asked], sampling, **named)
    samples: list[SampledCompletion] = [await reference async for reference in answers]
    return [sampled.completion for sampled in sorted(samples, key=lambda sampled: sampled.index)]


def sample(actors: cluster.Actors, sampling: Sampling, *prefixes: SampledTokens) -> list[Completion]:
    return asyncio.run(stream(engine(actors), PROMPT, sampling, dict(enumerate(prefixes)) if prefixes else None))


def first(completion: Completion, length: int) -> SampledTokens:
    """The first tokens of a completion, as another engine may have told them."""
    return SampledTokens(
        start=0,
        token_ids=completion.token_ids[:length],
        logprobs=completion.logprobs[:length],
        versions=[replace(span, end=min(span.end, length)) for span in completion.versions if span.start < length],
    )


def test_log_probabilities_are_the_model_s_on_both_sides_of_the_seam(actors: cluster.Actors) -> None:
    free = sample(actors, FREE)
    prefixes = [first(completion, min(20, len(completion.token_ids) - 1)) for completion in free]
    for whole, prefix in zip(sample(actors, FREE, *prefixes), prefixes, strict=True):
        given = prefix.end
        assert whole.token_ids[:given].tolist() == prefix.token_ids.tolist()
        assert whole.logprobs[:given].tolist() == prefix.logprobs.tolist()
        assert given < len(whole.token_ids) == len(whole.logprobs) <= 60
        assert [(span.start, span.end) for span in whole.versions] == [(0, len(whole.token_ids))]
        assert whole.finish_reason == "length" or len(whole.token_ids) < 60
        asked = PROMPT.token_ids + whole.token_ids.tolist()
        probe = ray.get(engine(actors).probe.remote(asked))
        assert probe.version == actors.rollouts.version
        assert len(probe.logprobs) == len(asked) - 1
        np.testing.assert_allclose(whole.logprobs, probe.logprobs[len(PROMPT.token_ids) - 1 :], atol=1e-4)


def test_a_continued_completion_has_noise_of_its_own(actors: cluster.Actors) -> None:
    free = sample(actors, FREE)
    again = sample(actors, FREE, *[first(completion, 1) for completion in free])
    tails = [(a.token_ids[1:].tolist(), b.token_ids[1:].tolist()) for a, b in zip(free, again, strict=True)]
    assert sum(old != new for old, new in tails) == len(tails)
    assert [whole.token_ids.tolist() for whole in sample(actors, FREE, *[first(each, 1) for each in free])] == [
        whole.token_ids.tolist() for whole in again
    ]


def test_without_noise_a_continued_completion_is_the_same(actors: cluster.Actors) -> None:
    (free,) = sample(actors, GREEDY)
    for length in (1, 30, len(free.token_ids) - 1):
        (whole,) = sample(actors, GREEDY, first(free, length))
        assert whole.token_ids.tolist() == free.token_ids.tolist()
        assert (whole.text, whole.finish_reason) == (free.text, free.finish_reason)
        np.testing.assert_allclose(whole.logprobs, free.logprobs, atol=1e-4)
        assert whole.cached_tokens <= len(PROMPT.token_ids)


def test_a_prompt_s_prefix_begins_completions_that_are_judged_whole(actors: cluster.Actors) -> None:
    assert actors.episodes is not None
    with Scorer(actors.episodes, actors.background, slots=8, warn=print) as scorer:
        (whole,) = scorer.score([PROMPT], GREEDY)
        token_ids = whole.group.completions[0].token_ids.tolist()
        places = [1, 20, len(token_ids) - 1, len(token_ids)]
        prompts = [replace(PROMPT, id=f"a/{end}", prefix=token_ids[:end]) for end in places]
        groups = scorer.score(prompts, GREEDY)
        assert [scorer.tokens(group) for group in groups] == [len(token_ids) - end for end in places]
    for group in groups:
        (completion,), (first_text,) = group.group.completions, whole.group.completions
        assert (completion.token_ids.tolist(), completion.text) == (token_ids, first_text.text)
        assert group.rewards == whole.rewards and group.group.trajectories[0].turns[0].observed.tolist() == (
            PROMPT.token_ids
        )


def written(tokenizer: Any, completion: Completion, start: int) -> str | None:
    """The text of tokens `start` and `start + 1`, if it is of two visible characters that are nowhere before."""
    text = tokenizer.decode(completion.token_ids[start : start + 2])
    return text if re.fullmatch("[!-~]{2}", text) and text not in completion.text[: start + 1] else None


def test_a_stop_text_is_found_on_both_sides_of_the_seam(actors: cluster.Actors, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    free = sample(actors, FREE)
    found = 0
    for given in range(10, 40):
        prefixes = [first(completion, given) for completion in free]
        for index, whole in enumerate(sample(actors, FREE, *prefixes)):
            if text := written(tokenizer, whole, given - 1):  # a token of either side
                stopping = replace(FREE, stop=["never written", text])
                (cut,) = asyncio.run(stream(engine(actors), PROMPT, stopping, {index: prefixes[index]}))
                assert (cut.token_ids.tolist(), cut.finish_reason) == (whole.token_ids[: given + 1].tolist(), "stop")
                assert cut.text.endswith(text)
                found += 1
        if found >= 3:
            return
    raise AssertionError(f"only {found} texts of two tokens across a seam")


def test_a_completion_at_its_end_is_sampled_no_further(actors: cluster.Actors, tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    free = sample(actors, FREE)
    whole, end = next((each, n) for each in free for n in range(2, 50) if written(tokenizer, each, n - 2))
    prefix, single = first(whole, end), replace(FREE, completions=1)
    ended = replace(prefix, token_ids=np.array([*prefix.token_ids[:-1], tokenizer.eos_token_id], np.int32))
    before = ray.get(engine(actors).progress.remote()).tokens
    for sampling, given, reason in [
        (single, ended, "stop"),
        (replace(single, max_tokens=end), prefix, "length"),
        (replace(single, stop_token_ids=[int(prefix.token_ids[-1])]), prefix, "stop"),
        (replace(single, max_tokens=end, stop=[str(written(tokenizer, whole, end - 2))]), prefix, "stop"),
    ]:
        (completion,) = sample(actors, sampling, given)
        assert (completion.token_ids.tolist(), completion.finish_reason) == (given.token_ids.tolist(), reason)
        assert completion.logprobs.tolist() == given.logprobs.tolist()
        assert completion.text == tokenizer.decode(given.token_ids, skip_special_tokens=True)
    assert ray.get(engine(actors).progress.remote()).tokens == before


async def follow(handle: Any, running: asyncio.Future[Any], told: dict[int, list[SampledTokens]]) -> None:
    """Collects partials by index until a call has ended."""
    while not running.done():
        progress: EngineProgress = await handle.progress.remote(with_partials=True)
        for (call, prompt_id, index), tokens in progress.partials.split() if progress.partials else ():
            assert (call, prompt_id) == ("c", "a")
            told.setdefault(index, []).append(tokens)


def test_tokens_are_told_once_before_a_completion_ends(actors: cluster.Actors) -> None:
    async def run() -> tuple[list[Completion], dict[int, list[SampledTokens]]]:
        told: dict[int, list[SampledTokens]] = {}
        running = asyncio.ensure_future(stream(engine(actors), PROMPT, replace(FREE, max_tokens=200)))
        await follow(engine(actors), running, told)
        return await running, told

    completions, told = asyncio.run(run())
    assert sum(len(chunks) for chunks in told.values()) > len(completions)
    for index, chunks in told.items():
        joined, whole = SampledTokens.joined(chunks), completions[index]
        assert [chunk.start for chunk in chunks] == [0, *(chunk.end for chunk in chunks[:-1])]
        assert joined.token_ids.tolist() == whole.token_ids[: joined.end].tolist()
        assert joined.logprobs.tolist() == whole.logprobs[: joined.end].tolist()


def test_told_tokens_around_a_load_have_the_versions_of_the_whole(actors: cluster.Actors) -> None:
    actors.learner.version += 1
    snapshot = ray.put(actors.learner.publish(whole=True))
    long = replace(FREE, completions=1, max_tokens=380)
    told: list[SampledTokens] = []

    async def run() -> Completion:
        async def load() -> list[list[SampledCompletion]]:
            return await sample_through(engine(actors), snapshot, (PROMPT, long))

        running = asyncio.ensure_future(load())
        while not running.done():
            progress = await engine(actors).progress.remote(with_partials=True)
            told.extend(tokens for _, tokens in (progress.partials.split() if progress.partials else ()))
        ((sampled,),) = await running
        return sampled.completion

    whole = asyncio.run(run())
    actors.rollouts.version = actors.learner.version
    assert len(whole.versions) == 2
    joined = SampledTokens.joined(told)
    assert joined.end > whole.versions[1].start
    assert joined.versions == first(whole, joined.end).versions


def test_released_completions_end_their_call_and_keep_every_token(actors: cluster.Actors) -> None:
    long = replace(FREE, completions=4, max_tokens=300)
    free = sample(actors, replace(long, max_tokens=20))
    given = first(free[0], 7)

    async def run() -> tuple[list[Completion], dict[tuple[str, int], SampledTokens]]:
        handle = engine(actors)
        before = (await handle.progress.remote()).tokens
        running = asyncio.ensure_future(stream(handle, PROMPT, long, call="c"))
        going_on = asyncio.ensure_future(stream(handle, replace(PROMPT, id="b"), long, {0: given}, call="d"))
        while (await handle.progress.remote(with_partials=True)).tokens < before + 100:
            pass
        released = await handle.release.remote()
        parts = {(call, index): tokens for (call, _, index), tokens in released.split()}
        return await running + await going_on, parts

    ended, parts = asyncio.run(run())
    assert len(ended) + len(parts) == 5
    assert {tokens.start for tokens in parts.values()} == {0}
    assert parts["d", 0].end > 7
    assert parts["d", 0].token_ids[:7].tolist() == given.token_ids.tolist()
    index, part = next((index, part) for (call, index), part in parts.items() if call == "c")
    (whole,) = asyncio.run(stream(engine(actors), PROMPT, long, {index: part}))
    assert whole.token_ids[: part.end].tolist() == part.token_ids.tolist()
    assert part.token_ids[:20].tolist() == free[index].token_ids.tolist()
    assert ray.get(engine(actors).release.remote()) is None
