"""Stalls of the feed on a virtual clock: the run ends if an actor makes no progress, and names the actor."""

from __future__ import annotations

import asyncio

import pytest

from rlframe.errors import Stalled
from tests.tiny.episodes import TinyEngine, TinyJudge
from tests.tiny.feed import Start, hold, names, publish
from tests.tiny.timed import Shape, timed_run


def test_a_completion_of_16000_tokens_at_100_ms_does_not_stall_a_run() -> None:
    shape = Shape(
        late="wait", max_staleness=0, prompts_per_step=1, group_size=1, engines=1, slots=1, token_s=0.1,
        lengths=lambda _: [16_000], step_s=lambda: 1.0,
    )  # fmt: skip
    with timed_run(shape, stall_timeout_s=60) as run:
        assert [group.lengths for group in run.step()] == [[16_000]]
        assert run.feed.background.now() > 1600


def test_a_silent_engine_is_replaced_while_the_other_goes_on(start: Start) -> None:
    engines = [TinyEngine("rollout-0", seconds=1.0), TinyEngine("rollout-1", seconds=1.0)]
    hold(engines[1], *[f"o{n}" for n in range(20)])
    feed = start(engines, max_staleness=1, late="mask", slots=4)
    replaced: list[tuple[str, str]] = []
    feed.episodes.replace_engine = lambda name, reason: replaced.append((name, reason))
    taken: list[str] = []
    while not {"o0", "o1"} <= set(taken):  # each engine began with one of these two
        publish(feed, engines, len(taken) // 2)
        taken += names(feed.take(2))
        feed.background.run(asyncio.sleep(5))
    assert len(taken) == len(set(taken))
    assert 60 <= feed.background.now() <= 75
    ((name, reason),) = replaced
    assert name == "rollout-1"
    assert reason.startswith("it sampled no token of 4 completions for 6")


def test_a_load_that_never_ends_ends_the_run(start: Start) -> None:
    engine = TinyEngine(seconds=1.0)
    engine.loading = True
    hold(engine, "o0")
    feed = start([engine])
    with pytest.raises(Stalled, match=r"^rollout-0 has not ended the load of new weights after 6"):
        feed.take(2)


def test_rewards_that_give_no_verdict_end_the_run(start: Start) -> None:
    judge = TinyJudge()
    judge.stuck = {"o0@0/0"}
    feed = start([TinyEngine()], judge)
    with pytest.raises(Stalled) as stalled:
        feed.take(2)
    lines = str(stalled.value).splitlines()
    assert lines[0].startswith("no reward worker gave a verdict for 6")
    assert lines[-2].startswith("  verdicts for episodes-0: reward-0 has 1 in flight")
    assert lines[-1] == "  groups: 1 ready, 1 open (o0@0#1); 0 groups of evaluations are open"


def test_an_evaluation_outlives_a_silent_engine(start: Start) -> None:
    engines = [TinyEngine("rollout-0", seconds=1.0), TinyEngine("rollout-1", seconds=1.0)]
    hold(engines[0], "o0")
    feed = start(engines)
    (group,) = feed.score([feed.stream.at(0)], feed.sampling)
    assert [completion.text for completion in group.group.completions] == ["o0@0/0", "o0@0/1"]
    assert engines[1].asked == ["o0"]


def test_slow_progress_is_not_a_stall(start: Start) -> None:
    feed = start([TinyEngine(seconds=59.0)])
    assert names(feed.take(2)) == ["o0", "o1"]  # four completions: 236 s
