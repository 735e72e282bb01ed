"""The rollout feed over episode workers, whose engines and judge finish what a test lets them, on a virtual clock."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable

import pytest

from rlframe.actors.background import Background
from rlframe.errors import RunFailed
from rlframe.experience.flow import RolloutFeed
from rlframe.train.signals import Stop, StopSignals
from rlframe.types import Prompt, Sampling
from tests.tiny.episodes import Place, TinyEngine, TinyJudge
from tests.tiny.feed import Start, hold, make_feed, names, publish, release
from tests.tiny.groups import plain


def after(feed: RolloutFeed, seconds: float, happen: Callable[[], None]) -> None:
    """Calls `happen` once the feed has waited for `seconds`."""

    async def call() -> None:
        await asyncio.sleep(seconds)
        happen()

    async def begin() -> None:
        feed.background.start(call())

    feed.background.run(begin())


def shuffled(seed: int) -> Callable[[list[Place]], list[Place]]:
    return lambda places: random.Random(seed).sample(places, len(places))


@pytest.mark.parametrize("dynamic_sampling", [False, True])
def test_on_policy_steps_do_not_depend_on_the_order_of_answers(start: Start, dynamic_sampling: bool) -> None:
    def three_steps(order: Callable[[list[Place]], list[Place]], seed: int):
        late = random.Random(seed)
        engine = TinyEngine(order=order)
        judge = TinyJudge(equal=("o1@0", "o4@0", "o5@0"), seconds=lambda: late.random() * 10)
        feed = start(engine, judge, dynamic_sampling=dynamic_sampling)
        taken = []
        for version in range(3):
            publish(feed, [engine], version)
            groups = feed.take(2)
            taken.append([feed.background.run(feed.episodes.fetch(group)) for group in groups])
        return taken, engine.calls

    taken, calls = three_steps(list, 0)
    prompts = [[group.group.prompt.id for group in step] for step in taken]
    asked = [list(dict.fromkeys(name.split("@")[0] for name in call)) for call in calls]
    if dynamic_sampling:  # o1, o4 and o5 have equal rewards
        assert prompts == [["o0@0", "o2@0"], ["o3@0", "o6@0"], ["o7@0", "o8@0"]]
        assert asked == [["o0", "o1"], ["o2"], ["o3", "o4"], ["o5"], ["o6"], ["o7", "o8"]]
    else:
        assert prompts == [["o0@0", "o1@0"], ["o2@0", "o3@0"], ["o4@0", "o5@0"]]
        assert asked == [["o0", "o1"], ["o2", "o3"], ["o4", "o5"]]  # a step's prompts enter an engine together
    assert [completion.text for completion in taken[0][0].group.completions] == ["o0@0/0", "o0@0/1"]
    assert taken[0][0].rewards == [0.0, 1.0]
    for seed in range(1, 6):
        assert plain(three_steps(shuffled(seed), seed)) == plain((taken, calls))


def test_on_policy_nothing_is_sampled_before_the_next_take(start: Start) -> None:
    engine = TinyEngine()
    feed = start(engine, slots=100)
    feed.take(2)
    feed.background.run(asyncio.sleep(30))
    assert engine.asked == ["o0", "o1"]


def test_ahead_a_prompt_is_sampled_for_each_free_slot_until_a_step_is_ready(start: Start) -> None:
    engine = TinyEngine()
    feed = start(engine, max_staleness=4, late="mask", slots=6)
    hold(engine, *[f"o{n}" for n in range(20)])
    after(feed, 5, lambda: release(engine, "o0", "o1"))
    assert names(feed.take(2)) == ["o0", "o1"]
    assert engine.asked == ["o0", "o1", "o2", "o3", "o4"]  # 6 slots have room for 3 prompts, and 2 were finished
    release(engine, "o2", "o3", "o4", "o5", "o6", "o7")
    feed.background.run(asyncio.sleep(30))  # the learner computes
    assert feed.metrics()["rollout/groups_ready"] >= 2
    asked = len(engine.asked)
    feed.background.run(asyncio.sleep(30))
    assert len(engine.asked) == asked  # a whole step's groups wait


def test_slots_below_the_group_size_still_admit_a_prompt(start: Start) -> None:
    engine = TinyEngine()
    feed = start(engine, max_staleness=1, late="mask", slots=1)
    assert names(feed.take(2)) == ["o0", "o1"]


def test_a_take_waits_for_a_prompt_that_is_due(start: Start) -> None:
    engine = TinyEngine()
    feed = start(engine, max_staleness=1, slots=20)
    hold(engine, "o0")
    assert names(feed.take(2)) == ["o1", "o2"]  # o0 has time: it may be one version old
    publish(feed, [engine], 1)
    after(feed, 10, lambda: release(engine, "o0"))
    assert names(feed.take(2)) == ["o0", "o3"]
    assert feed.background.now() > 10


def test_a_take_waits_for_one_of_two_prompts_that_are_due_together(start: Start) -> None:
    engine = TinyEngine()
    feed = start(engine, prompts_per_step=1, max_staleness=2, slots=20)
    hold(engine, "o0", "o1")
    assert names(feed.take(1)) == ["o2"]
    publish(feed, [engine], 1)
    after(feed, 10, lambda: release(engine, "o1"))
    assert names(feed.take(1)) == ["o1"]  # were o3 taken, o0 or o1 would be left for version 3
    assert feed.background.now() > 10


def test_a_take_that_masks_or_keeps_old_tokens_waits_for_no_prompt(start: Start) -> None:
    for late in ("mask", "keep"):
        engine = TinyEngine()
        feed = start(engine, max_staleness=1, late=late, slots=20)
        hold(engine, *[f"o{n}" for n in range(20)])
        for version in range(3):
            publish(feed, [engine], version)
            step = [f"o{2 * version + 1}", f"o{2 * version + 2}"]
            release(engine, *step)
            assert names(feed.take(2)) == step
        release(engine, "o0", "o7")
        publish(feed, [engine], 3)
        feed.background.run(asyncio.sleep(0.1))
        assert names(feed.take(2)) == ["o0", "o7"]  # the oldest prompt comes first


@pytest.mark.parametrize("max_staleness", [0, 1, 2, 3])
def test_no_token_is_older_than_the_bound(start: Start, max_staleness: int) -> None:
    late = random.Random(max_staleness)
    engine = TinyEngine(order=lambda places: late.sample(places, len(places)))
    feed = start(engine, TinyJudge(seconds=lambda: late.choice([0.0, 0.0, 0.05])), max_staleness=max_staleness)
    ages = []
    for version in range(9):
        publish(feed, [engine], version)
        for group in feed.take(2):
            ages += [version - span.version for trajectory in group.trajectories for span in trajectory.versions]
    assert max(ages) <= max_staleness


def test_dynamic_sampling_replaces_groups_of_equal_rewards(start: Start) -> None:
    engine = TinyEngine()
    feed = start(engine, TinyJudge(equal=("o1@0", "o2@0")), dynamic_sampling=True)
    assert names(feed.take(2)) == ["o0", "o3"]
    assert engine.asked == ["o0", "o1", "o2", "o3"]
    assert feed.metrics()["rollout/groups_replaced"] == 2
    assert feed.metrics()["rollout/groups_replaced"] == 0  # since the last call


def test_a_resumed_run_counts_groups_that_it_has_replaced_itself(start: Start) -> None:
    saved_run = start(TinyEngine(), TinyJudge(equal=("o1@0", "o2@0")), dynamic_sampling=True)
    saved_run.take(2)
    saved_run.rollouts.version = 1
    resumed = start(TinyEngine(), TinyJudge(equal=("o4@0",)), dynamic_sampling=True)
    resumed.restore(saved_run.state())
    resumed.take(2)
    assert (resumed.ledger.dropped, resumed.metrics()["rollout/groups_replaced"]) == (3, 1)


def test_a_step_that_replaces_more_than_half_of_its_groups_is_told_once(start: Start) -> None:
    told: list[str] = []
    engine = TinyEngine()
    feed = start(engine, TinyJudge(equal=("o0@0", "o1@0", "o2@0")), dynamic_sampling=True, warn=told.append)
    assert names(feed.take(2)) == ["o3", "o4"]
    assert [line.partition(" groups")[0] for line in told] == ["step 1: dynamic sampling replaced 3 of 5"]
    publish(feed, [engine], 1)
    feed.take(2)
    assert len(told) == 1


@pytest.mark.parametrize("max_staleness", [0, 2])
def test_a_run_without_any_signal_ends_instead_of_sampling_forever(start: Start, max_staleness: int) -> None:
    engine = TinyEngine()
    judge = TinyJudge(equal=tuple(f"o{n}@0" for n in range(20)))
    feed = start(engine, judge, dynamic_sampling=True, max_staleness=max_staleness, slots=2)
    with pytest.raises(RunFailed, match=r"replaced \d groups for one step of 2 prompts.* 100% of them all wrong"):
        feed.take(2)
    assert len(engine.asked) <= 7


def test_a_restored_run_samples_interrupted_prompts_first(start: Start) -> None:
    engine = TinyEngine()
    saved_run = start(engine, max_staleness=1)
    hold(engine, "o0", "o3")
    trained = names(saved_run.take(2))
    saved_run.rollouts.version = 1
    state = json.loads(json.dumps(saved_run.state()))
    assert (trained, state) == (
        ["o1", "o2"],
        {"next_position": 4, "in_flight": [[0, 1], [3, 1]], "taken": 2, "dropped": 0, "given_up": 0, "skipped": {}},
    )

    engine = TinyEngine()
    resumed = start(engine, max_staleness=1)
    resumed.restore(state)
    for version in (1, 2, 3):
        publish(resumed, [engine], version)
        trained += names(resumed.take(2))
    assert engine.asked[:4] == ["o0", "o3", "o4", "o5"]
    assert sorted(trained) == [f"o{n}" for n in range(8)]


def test_an_error_of_an_engine_or_a_reward_ends_every_wait(start: Start) -> None:
    for culprit in ("engine", "judge"):
        engine, judge = TinyEngine(), TinyJudge()
        {"engine": engine, "judge": judge}[culprit].error = RuntimeError("it died")
        feed = start(engine, judge)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="it died"):
                feed.take(2)
        with pytest.raises(RuntimeError, match="it died"):
            feed.score([feed.stream.at(0)], Sampling(completions=2, max_tokens=8, temperature=1.0, seed=0))


def test_held_out_prompts_keep_their_order_and_leave_the_ledger_alone(start: Start) -> None:
    engine = TinyEngine(order=lambda places: places[::-1])
    feed = start(engine, max_staleness=1)
    hold(engine, "o2", "o3", "o4", "o5")
    feed.take(2)
    ledger = feed.state()
    heldout = [Prompt(id=f"h{n}@0", messages=[], token_ids=[n], reference="5", task="math") for n in (3, 1, 2)]
    groups = feed.score(heldout, Sampling(completions=3, max_tokens=8, temperature=1.0, seed=0))
    assert [group.group.prompt.id for group in groups] == ["h3@0", "h1@0", "h2@0"]
    assert [c.text for c in groups[1].group.completions] == ["h1@0/0", "h1@0/1", "h1@0/2"]
    assert feed.state() == ledger


def test_an_interrupted_take_leaves_every_prompt_in_the_ledger() -> None:
    engine = TinyEngine()
    background = Background("interrupted", stall_timeout_s=60)
    feed = make_feed(background, [engine])
    hold(engine, "o1")
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    StopSignals().listen()

    def stop() -> None:
        deadline = time.monotonic() + 60
        while not engine.calls and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)  # for the answer about o0
        if engine.calls:
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    try:
        with feed:
            with pytest.raises(Stop, match="SIGTERM"):
                feed.take(2)
            in_flight = [[0, 1], [1, 1]]
            assert feed.state() == {
                "next_position": 2, "in_flight": in_flight, "taken": 0, "dropped": 0, "given_up": 0, "skipped": {}
            }  # fmt: skip
            release(engine, "o1")
            assert names(feed.take(2)) == ["o0", "o1"]
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
        background.run(feed.episodes.close())
        background.close()
