"""The door: what an engine sends and an episode worker refuses, alone and at random in a run."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlframe.actors.in_process import InProcess
from rlframe.errors import RunFailed
from rlframe.rollout.door import problem_with
from rlframe.rollout.messages import EngineProgress, EngineSeat
from rlframe.rollout.partials import Partials
from rlframe.types import Completion, SampledCompletion, Sampling, VersionSpan
from tests.tiny.episodes import Followed, TinyEngine, make_order, make_pool

SAMPLING = Sampling(completions=2, max_tokens=8, temperature=1.0, seed=0)
OWED = {"p": {0, 1}}
VERSIONS = (3, 5)  # of the engine when it was asked, and the newest
SENT = SampledCompletion(
    prompt_id="p",
    index=1,
    completion=Completion(
        token_ids=np.array([5, 0, 7], np.int32),
        logprobs=np.array([-1.0, -0.0, -2.5], np.float32),
        versions=[VersionSpan(version=3, start=0, end=1), VersionSpan(version=5, start=1, end=3)],
        text="abc",
        finish_reason="length",
    ),
)


def sent(**changes: Any) -> SampledCompletion:
    return replace(SENT, completion=replace(SENT.completion, **changes))


def spans(*bounds: tuple[int, int, int]) -> list[VersionSpan]:
    return [VersionSpan(version=version, start=start, end=end) for version, start, end in bounds]


def with_logprob(value: float) -> SampledCompletion:
    return sent(logprobs=np.array([-1.0, value, -2.5], np.float32))


NOTHING = sent(token_ids=np.zeros(0, np.int32), logprobs=np.zeros(0, np.float32), versions=[])
LONG = sent(token_ids=np.zeros(9, np.int32), logprobs=np.zeros(9, np.float32), versions=spans((3, 0, 9)))
WRONG = {
    "nobody asked for a completion of prompt 'q'": replace(SENT, prompt_id="q"),
    "nobody waits for completion 2": replace(SENT, index=2),
    "nobody waits for completion '1'": replace(SENT, index="1"),
    "its 3 tokens have log-probabilities that are float32 of shape (2,)": sent(logprobs=np.zeros(2, np.float32)),
    "log-probabilities that are <U4": sent(logprobs=np.array(["-1.0", "-2.0", "-3.0"])),
    "not a row of integers": sent(token_ids=np.zeros((3, 1), np.int32)),
    "its token ids are float64": sent(token_ids=np.array([1.0, 2.0, 3.0])),
    "more than max_tokens=8": LONG,
    "token 1 has the id -1": sent(token_ids=np.array([5, -1, 7], np.int32)),
    "token 1 has the log-probability nan": with_logprob(float("nan")),
    "token 1 has the log-probability -inf": with_logprob(float("-inf")),
    "token 1 has the log-probability inf": with_logprob(float("inf")),
    "token 1 has the log-probability 0.0010": with_logprob(0.001),
    "the span [2, 3) after 1 tokens": sent(versions=spans((3, 0, 1), (5, 2, 3))),
    "the span [0, 3) after 1 tokens": sent(versions=spans((3, 0, 1), (5, 0, 3))),
    "the span [1, 0) after 1 tokens": sent(versions=spans((3, 0, 1), (5, 1, 0), (5, 0, 3))),
    "span 2 of its 3 tokens": sent(versions=spans((3, 0, 2))),
    "span 4 of its 3 tokens": sent(versions=spans((3, 0, 4))),
    "span 0 of its 3 tokens": sent(versions=[]),
    "policy version 2, but the engine had 3": sent(versions=spans((2, 0, 3))),
    "policy version 6, but the engine had 3 and the newest is 5": sent(versions=spans((3, 0, 1), (6, 1, 3))),
    "'float' object": sent(versions=spans((3.5, 0, 3))),
    "its finish reason is 'abort'": sent(finish_reason="abort"),
    "its finish reason is ['stop']": sent(finish_reason=["stop"]),
    "its text is a NoneType": sent(text=None),
    "it is no completion: AttributeError": replace(SENT, completion=None),
    "it is no completion: TypeError: unhashable": replace(SENT, prompt_id=[]),
    "'str' object has no attribute": "completion",
}


@pytest.mark.parametrize("problem", WRONG)
def test_a_wrong_completion_is_refused_with_the_problem(problem: str):
    found = problem_with(WRONG[problem], OWED, SAMPLING, VERSIONS)
    assert found is not None
    assert problem in found


@pytest.mark.parametrize(
    "right", [SENT, NOTHING, with_logprob(0.0), with_logprob(5e-5), sent(token_ids=[5, 0, 7], logprobs=[-1.0, 0.0, -2])]
)
def test_a_right_completion_passes(right: SampledCompletion):
    assert problem_with(right, OWED, SAMPLING, VERSIONS) is None


def test_log_probabilities_by_float32_pass_for_any_logits():
    dice = np.random.default_rng(0)
    for scale in (0.01, 1.0, 30.0, 1000.0):
        logits = (dice.standard_normal((2000, 50)) * scale).astype(np.float32)
        top = logits.max(axis=1)
        certain = top - (top + np.log(np.exp(logits - top[:, None]).sum(axis=1)))  # rounds the sum with the logit
        for logprob in certain[:: 100 if scale < 30 else 1]:
            assert problem_with(with_logprob(float(logprob)), OWED, SAMPLING, VERSIONS) is None


def corrupt(sampled: SampledCompletion, dice: random.Random) -> list[Any]:
    """Values that an engine sends in place of a completion, each in some way wrong."""
    completion = sampled.completion
    logprobs, token_ids = completion.logprobs.copy(), completion.token_ids.copy()
    place, version = dice.randrange(3), completion.versions[0].version
    logprobs[place] = dice.choice([float("nan"), float("inf"), float("-inf"), dice.uniform(0.001, 9)])
    token_ids[place] = -dice.randrange(1, 1000)
    wrong = [
        {"logprobs": logprobs},
        {"token_ids": token_ids},
        {"logprobs": completion.logprobs[: dice.randrange(3)]},
        {"token_ids": np.tile(token_ids, 3), "logprobs": np.tile(logprobs, 3)},
        {"versions": spans((version + dice.randrange(1, 9), 0, 3))},
        {"versions": spans((version - dice.randrange(1, 9), 0, 3))},
        {"versions": spans((version, 0, place))},
        {"versions": spans((version, 0, place), (version, place + 1, 3))},
        {"finish_reason": dice.choice(["abort", "", None, 7])},
    ]
    return dice.choice(
        [
            [replace(sampled, completion=replace(completion, **dice.choice(wrong)))],
            [replace(sampled, prompt_id=dice.choice(["nobody@0", None, 3, ["o0@0"]]))],
            [replace(sampled, index=dice.choice([-1, 99, None, "0", 0.5]))],
            [replace(sampled, completion=None)],
            [sampled, sampled],
            [sampled, replace(sampled, completion=replace(completion, text="another one"))],
            [dice.choice([None, "text", 5, {"prompt_id": "o0@0"}])],
            [],
        ]
    )


@pytest.mark.parametrize("seed", range(6))
def test_random_corruptions_never_reach_a_group_and_every_group_completes(seed: int):
    dice = random.Random(seed)
    names = [f"o{n}" for n in range(12)]

    def hostile(sampled: SampledCompletion) -> list[Any]:
        return corrupt(sampled, dice) if dice.random() < 0.25 else [sampled]

    def engine(name: str) -> TinyEngine:
        made = TinyEngine(name, order=lambda places: dice.sample(places, len(places)))
        made.version, made.change = 4, hostile
        return made

    async def run() -> tuple[list[Any], Followed]:
        pool = make_pool([engine(f"rollout-{n}") for n in range(3)], slots=64, heartbeat_s=0.005)
        async with Followed(pool, new_engine=engine) as followed:
            await pool.announce(4)
            await followed.until(lambda: [e.version for e in followed.engines.values()] == [4] * 3)
            pool.assign([make_order(name) for name in names])
            return await followed.groups(*names), followed

    groups, followed = asyncio.run(run())
    sane = TinyEngine()
    sane.version = 4
    for name, group in zip(names, groups, strict=True):
        for index, completion in enumerate(group.group.completions):
            expected = sane.sampled(group.group.prompt, index).completion
            assert (completion.text, completion.finish_reason) == (f"{name}@0/{index}", "stop")
            assert completion.versions == expected.versions
            np.testing.assert_array_equal(completion.token_ids, expected.token_ids)
            np.testing.assert_array_equal(completion.logprobs, expected.logprobs)
        assert group.rewards == [0.0, 1.0]
    assert followed.reports[-1].refusals > 0


def engine_with(change: Callable[[SampledCompletion], list[Any]], name: str = "rollout-0") -> TinyEngine:
    engine = TinyEngine(name)
    engine.change = change
    return engine


def broken_number(sampled: SampledCompletion) -> list[Any]:
    return [replace(sampled, completion=replace(sampled.completion, logprobs=np.full(3, np.nan, np.float32)))]


def test_a_refused_completion_is_sampled_by_another_engine():
    first = iter([broken_number])
    engines = [engine_with(lambda sampled: next(first, lambda right: [right])(sampled)), TinyEngine("rollout-1")]

    async def run() -> Followed:
        async with Followed(make_pool(engines)) as followed:
            followed.pool.assign([make_order("o0")])
            await followed.groups("o0")
            return followed

    followed = asyncio.run(run())
    assert [engine.calls for engine in engines] == [[["o0@0/0", "o0@0/1"]], [["o0@0/0"]]]
    told = [report.refused for report in followed.reports if report.refused]
    assert told == [{"rollout-0": "completion 0 of prompt 'o0@0': token 0 has the log-probability nan"}]
    assert (followed.reports[-1].refusals, followed.reports[-1].broken) == (1, {})


def test_three_refusals_in_a_row_break_an_engine_and_two_do_not():
    fates = iter([broken_number, broken_number, lambda right: [right], *[broken_number] * 3])
    engine = engine_with(lambda sampled: next(fates)(sampled))

    async def run() -> list[dict[str, str]]:
        async with Followed(make_pool([engine], heartbeat_s=0.01)) as followed:
            followed.pool.assign([make_order("o0")])
            await followed.until(lambda: any(report.broken for report in followed.reports))
            calls = len(engine.calls)
            assert (followed.pool.completions, calls) == (1, 5)  # the sixth answer was not asked for again
            new = TinyEngine("rollout-1")
            await followed.pool.leave_engine("rollout-0")
            await followed.pool.join_engine(EngineSeat(name="rollout-1", handle=InProcess(new), slots=8))
            await followed.groups("o0")
            assert len(new.calls) == 1
            return [report.broken for report in followed.reports if report.broken]

    [broken] = asyncio.run(run())
    assert list(broken) == ["rollout-0"]
    assert broken["rollout-0"].startswith("3 completions in a row were refused, the last was completion ")


def test_a_completion_that_every_engine_spoils_ends_the_run():
    engines = [engine_with(broken_number, f"rollout-{n}") for n in range(4)]

    async def run() -> None:
        async with Followed(make_pool(engines)) as followed:
            followed.pool.assign([make_order("o0", replace(SAMPLING, completions=1))])
            await followed.groups("o0")

    with pytest.raises(RunFailed, match=r"10 answers of engines for one completion were refused, the last by rollout-"):
        asyncio.run(run())


class Babbler(TinyEngine):
    """Tells a token of completion 0 of prompt o0, and no log-probability of it."""

    partials = Partials(
        completions=[("a", "o0@0", 0)],
        starts=np.array([0], np.int32),
        ends=np.array([1], np.int32),
        token_ids=np.array([5], np.int32),
        logprobs=np.zeros(0, np.float32),
        versions=np.array([0], np.int32),
    )

    async def progress(self, with_partials: bool = False) -> EngineProgress:
        return replace(await super().progress(), partials=self.partials)

    async def release(self) -> Partials:
        return self.partials


def test_an_engine_that_tells_nonsense_three_times_is_broken_by_name():
    engines = [Babbler(), TinyEngine("rollout-1")]
    engines[0].held = {"o0@0/0", "o0@0/1"}

    async def run() -> Followed:
        async with Followed(make_pool(engines, heartbeat_s=0.01)) as followed:
            followed.pool.assign([make_order("o0")])
            await followed.groups("o0")
            return followed

    followed = asyncio.run(run())
    [broken] = [report.broken for report in followed.reports if report.broken]
    problem = "completions that are not finished: its arrays do not fit each other"
    assert broken == {"rollout-0": f"3 completions in a row were refused, the last was {problem}"}
    assert followed.reports[-1].refusals == 3


def test_nonsense_that_an_engine_gives_back_is_not_gone_on_after():
    engine = Babbler()

    async def run() -> tuple[Any, dict[str, str]]:
        worker = make_pool([engine]).workers["episodes-0"].handle.target
        return await worker._sampler.release(), worker._sampler.refused

    assert asyncio.run(run()) == (
        {},
        {"rollout-0": "completions that are not finished: its arrays do not fit each other"},
    )
    engine.partials = replace(engine.partials, logprobs=np.array([np.nan], np.float32))
    assert asyncio.run(run())[0] == {}
