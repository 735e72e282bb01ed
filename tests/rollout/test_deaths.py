"""Engines that die, stand still, leave and come back, on a virtual clock: their completions go on elsewhere."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace

import pytest

from rlframe.cluster import fleet
from rlframe.rollout import sampler
from rlframe.types import SampledCompletion
from tests.tiny.mortal_engines import BOUNDS, MortalEngine, Watch, now, on_virtual_clock, order, share, tokens, watch


def test_a_completion_goes_on_after_the_tokens_a_dead_engine_told() -> None:
    async def run() -> Watch:
        run = watch(2)
        run.sample(p=[100])
        await asyncio.sleep(3.05)  # 30 tokens, all told at 3.0
        run.engines["rollout-0"].die()
        await run.until_all_ended()
        return run

    run = on_virtual_clock(run)
    assert run.lengths() == {("p", 0): 100}
    assert run.ended_at["p", 0] == pytest.approx(3.05 + 70 * 0.1)
    assert run.engines["rollout-1"].prefixes[0]["p"][0].token_ids.tolist() == list(range(30))
    chunks = [(attempt, chunk.start, chunk.end) for attempt, chunk in run.told["p", 0]]
    assert chunks[:3] == [(1, 0, 10), (1, 10, 20), (1, 20, 30)]
    assert all(attempt == 2 and chunk.start >= 30 for attempt, chunk in run.told["p", 0][3:])
    assert run.folded("p") == list(range(chunks[-1][2]))
    assert run.broken["rollout-0"] == (3.05, "ActorDiedError: The actor died unexpectedly before finishing this task.")


def test_an_engine_that_stands_still_is_noticed_within_two_seconds() -> None:
    async def run() -> Watch:
        run = watch(2)
        run.sample(p=[200], q=[100])
        await asyncio.sleep(2.5)
        run.engines["rollout-0"].goes.clear()
        await run.until_all_ended()
        return run

    run = on_virtual_clock(run)
    at, reason = run.broken["rollout-0"]
    assert 2.0 + BOUNDS.silence_s <= at <= 2.5 + BOUNDS.silence_s + 2.0
    assert reason.startswith("it sampled no token of 1 completions for 5 s (rollout.silence_s), and does not answer")
    assert run.lengths() == {("p", 0): 200, ("q", 0): 100}
    assert run.engines["rollout-1"].prefixes[1]["p"][0].end == 20


def test_answers_of_a_lost_engine_are_counted_and_ignored() -> None:
    async def run() -> Watch:
        run = watch(2)
        run.sample(p=[80, 400])
        await asyncio.sleep(2.5)
        run.engines["rollout-0"].goes.clear()
        await asyncio.sleep(10)
        run.engines["rollout-0"].goes.set()  # sends completion 0 at once, and completion 1 later
        await run.until_all_ended()
        return run

    run = on_virtual_clock(run)
    assert run.lengths() == {("p", 0): 80, ("p", 1): 400}
    assert run.sampler.late == 2
    assert list(run.broken) == ["rollout-0"]


def test_a_load_is_no_silence_however_long_it_takes() -> None:
    async def run() -> Watch:
        run = watch(2, load_s=500.0)
        run.sample(p=[100])
        await asyncio.sleep(2.5)
        await run.engines["rollout-0"].load(SimpleNamespace(version=1))
        await run.until_all_ended()
        return run

    run = on_virtual_clock(run)
    assert (run.broken, run.ended_at["p", 0]) == ({}, 510.0)
    assert [(span.version, span.end) for span in run.completions["p", 0].versions] == [(0, 25), (1, 100)]


def test_an_engine_s_first_token_may_take_longer() -> None:
    async def run() -> Watch:
        run = watch(1, token_s=50.0)
        run.sample(p=[1])
        await run.until_all_ended()  # within `first_token_s`, 60 s
        run.sample(q=[1])
        await asyncio.sleep(10)
        return run

    run = on_virtual_clock(run)
    assert run.lengths() == {("p", 0): 1}
    assert 50 + BOUNDS.silence_s <= run.broken["rollout-0"][0] <= 52 + BOUNDS.silence_s


def test_time_in_which_the_worker_stood_still_is_no_silence() -> None:
    async def run() -> Watch:
        run = watch(1)
        run.sample(p=[10_000])
        await asyncio.sleep(2.5)
        await run.tasks.cancel()  # nobody looks for 400 s
        await asyncio.sleep(400)
        run.sampler.ask_progress(1.0)
        return run

    assert on_virtual_clock(run).broken == {}


def test_an_engine_that_leaves_gives_back_every_token() -> None:
    async def run() -> Watch:
        run = watch(2)
        run.sample(p=[100, 40])
        await asyncio.sleep(3.95)  # told up to 3.0: 30 tokens of each
        await run.sampler.leave("rollout-0", hand_over=True)
        await run.until_all_ended()
        return run

    run = on_virtual_clock(run)
    assert run.lengths() == {("p", 0): 100, ("p", 1): 40}
    assert {index: given.end for index, given in run.engines["rollout-1"].prefixes[0]["p"].items()} == {0: 39, 1: 39}
    assert run.folded("p")[:39] == list(range(39))
    assert run.ended_at["p", 0] == pytest.approx(3.95 + 61 * 0.1)
    assert run.broken == {}


@pytest.mark.parametrize("bound_s, ends_at", [(0.5, 10.55), (fleet.HAND_OVER_S, 3.05 + sampler.RELEASE_S + 7)])
def test_an_engine_that_hands_nothing_over_keeps_nothing(bound_s: float, ends_at: float) -> None:
    """30 tokens were told, and the other 70 take 7 s, after the fleet's bound or the sampler's own."""

    async def hang() -> None:
        await asyncio.sleep(3600)

    async def run() -> Watch:
        run = watch(2)
        run.sample(p=[100])
        await asyncio.sleep(3.05)
        run.engines["rollout-0"].release = hang  # pyright: ignore[reportAttributeAccessIssue]
        with suppress(TimeoutError):
            await asyncio.wait_for(run.sampler.leave("rollout-0", hand_over=True), bound_s)
        run.engines["rollout-0"].die()
        await asyncio.wait_for(run.until_all_ended(), 100)
        return run

    run = on_virtual_clock(run)
    assert run.lengths() == {("p", 0): 100}
    assert run.ended_at["p", 0] == pytest.approx(ends_at)
    assert sampler.RELEASE_S <= fleet.HAND_OVER_S / 2  # an answer has the time to come back


def test_without_an_engine_completions_wait_with_their_tokens() -> None:
    async def run() -> Watch:
        run = watch(2)
        run.sample(p=[100], q=[100])
        await asyncio.sleep(3.05)
        for engine in list(run.engines.values()):
            engine.die()
        await asyncio.sleep(1000)
        await run.join(MortalEngine("rollout-2"))
        await run.until_all_ended()
        return run

    run = on_virtual_clock(run)
    assert run.lengths() == {("p", 0): 100, ("q", 0): 100}
    assert run.ended_at == {("p", 0): 1010.05, ("q", 0): 1010.05}


def test_the_first_tokens_of_a_share_are_not_sampled_again() -> None:
    async def run() -> Watch:
        run = watch(1)
        run.sampler.sample([share(order("p", [50, 20]), {0: tokens(0, 30), 1: tokens(0, 20)})])
        await run.until_all_ended()
        return run

    run = on_virtual_clock(run)
    assert run.lengths() == {("p", 0): 50, ("p", 1): 20}
    assert (run.ended_at["p", 0], run.ended_at["p", 1]) == (2.0, 0.0)
    assert run.told["p", 0][0][1].start == 30


class Poisoned(MortalEngine):
    """Dies of the prompt `poison`."""

    async def generate(self, prompts, *arguments, **named):
        if any(prompt.id == "poison" for prompt in prompts):
            asyncio.get_running_loop().call_later(0.01, self.die)
        async for sampled in super().generate(prompts, *arguments, **named):
            yield sampled


def test_a_prompt_that_kills_every_engine_is_given_up_and_no_other() -> None:
    async def run() -> Watch:
        run = Watch(engines={name: Poisoned(name) for name in ("rollout-0", "rollout-1")})
        run.sample(a=[300, 300], poison=[10, 20], b=[200], c=[50, 60], d=[90])
        for number in range(2, 40):
            await asyncio.sleep(3)
            if len(run.sampler.engines) < 2:
                await run.join(Poisoned(f"rollout-{number}"))
        await run.until_all_ended()
        return run

    run = on_virtual_clock(run)
    assert list(run.given_up) == ["poison#1"]
    assert run.given_up["poison#1"].startswith("3 engines in a row died while they sampled it, the last was rollout-")
    assert {name for name, _ in run.completions} == {"a", "b", "c", "d"}
    assert run.lengths() == {
        ("a", 0): 300, ("a", 1): 300, ("b", 0): 200, ("c", 0): 50, ("c", 1): 60, ("d", 0): 90
    }  # fmt: skip
    assert len(run.broken) == 3


def test_deaths_with_new_tokens_between_give_nothing_up() -> None:
    async def run() -> Watch:
        run = watch(1)
        run.sample(p=[200])
        for number in range(1, 9):
            await asyncio.sleep(2.5)
            run.engines[f"rollout-{number - 1}"].die()
            await run.join(MortalEngine(f"rollout-{number}"))
        await run.until_all_ended()
        return run

    run = on_virtual_clock(run)
    assert (run.given_up, run.lengths()) == ({}, {("p", 0): 200})
    assert len(run.broken) == 8


class Nonsense(MortalEngine):
    """Sends log-probabilities that no token has."""

    async def generate(self, *arguments, **named):
        async for sampled in super().generate(*arguments, **named):
            wrong = replace(sampled.completion, logprobs=sampled.completion.logprobs + 2)
            yield SampledCompletion(prompt_id=sampled.prompt_id, index=sampled.index, completion=wrong)


def test_tokens_of_a_refused_completion_are_forgotten() -> None:
    async def run() -> Watch:
        run = Watch(engines={"rollout-0": Nonsense("rollout-0"), "rollout-1": MortalEngine("rollout-1")})
        run.sampler.sample([share(order("p", [50]), {0: tokens(0, 20)})])
        await run.until_all_ended()
        return run

    run = on_virtual_clock(run)
    assert run.lengths() == {("p", 0): 50}
    assert run.ended_at["p", 0] == pytest.approx(3.0 + 3.0)  # tokens 20 to 50 twice
    again = next(chunk for attempt, chunk in run.told["p", 0] if attempt == 2)
    assert (again.start, len(again.token_ids)) == (20, 0)
    assert run.engines["rollout-1"].prefixes[0]["p"][0].end == 20


@pytest.mark.parametrize("seed", range(20))
def test_whatever_dies_every_token_is_there_once(seed: int) -> None:
    rng = random.Random(seed)
    lengths = {f"p{n}": [rng.randint(1, 400) for _ in range(rng.randint(1, 4))] for n in range(30)}

    async def run() -> Watch:
        run = watch(3, slots=4, load_s=0.7)
        run.sampler.bounds = replace(BOUNDS, attempts=10)
        for name, each in lengths.items():
            run.sample(**{name: each})
        number = 3
        while run.sampler.unfinished:
            await asyncio.sleep(rng.uniform(1.5, 9))
            if not run.sampler.engines:
                continue
            engine = run.engines[rng.choice(list(run.sampler.engines))]
            fault = rng.choice(["die", "stop", "leave", "load", "load"])
            if fault == "die":
                engine.die()
            elif fault == "stop":
                engine.goes.clear()
                asyncio.get_running_loop().call_later(rng.uniform(1, 20), engine.goes.set)
            elif fault == "leave":
                await run.sampler.leave(engine.name, hand_over=True)
            elif not engine.loading:
                await engine.load(SimpleNamespace(version=int(now())))
            while len(run.sampler.engines) < 3:
                await run.join(MortalEngine(f"rollout-{number}", slots=4, load_s=0.7))
                number += 1
        if run.error:
            raise run.error
        return run

    run = on_virtual_clock(run)
    assert not run.given_up
    assert run.lengths() == {(name, index): each[index] for name, each in lengths.items() for index in range(len(each))}
    for name, index in run.completions:
        folded = run.folded(name, index)
        assert folded == list(range(len(folded)))
