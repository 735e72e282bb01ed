"""The rollout feed between engines and reward workers that finish what a test lets them, when it does."""

import gc
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlframe.errors import RunFailed, Stalled
from rlframe.experience.flow import RolloutFeed
from rlframe.experience.ledger import Ledger
from rlframe.experience.resampling import Resampling
from rlframe.prompts.stream import PromptStream
from rlframe.train.signals import Stop, StopSignals
from rlframe.types import (
    Problem,
    Prompt,
    Sampling,
    ScoredGroup,
)
from tests.tiny.feed import Engines, Place, Rewards, names
from tests.tiny.groups import plain
from tests.tiny.templates import make_template

PAIR = Sampling(completions=2, max_tokens=8, temperature=1.0, seed=0)


@pytest.fixture(scope="module")
def stream() -> Callable[[], PromptStream]:
    """Streams of o0@0, o1@0, ... o19@0, in this order: problems are named after their place in the first epoch."""
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", chat_template="{{ messages[-1].content }}"
    )

    def make(names: list[str]) -> PromptStream:
        turn = [{"role": "user", "content": "2 + 3 ?"}]
        problems = [Problem(id=name, messages=turn, reference="5", task="math") for name in names]
        template = make_template()
        return PromptStream(problems, tokenizer, template, seed=0, max_prompt_tokens=9, overlong="skip")

    numbered = make([str(n) for n in range(20)])
    places = [int(numbered.at(position).id.split("@")[0]) for position in range(20)]
    names = [f"o{places.index(n)}" for n in range(20)]
    return lambda: make(names)


def make_feed(
    stream: PromptStream, engines: Engines, rewards: Rewards, *, stall_timeout_s: float = 20.0, warn=print, **changes
) -> RolloutFeed:
    settings = {"prompts_per_step": 2, "max_staleness": 0, "dynamic_sampling": False}
    ledger = Ledger(**(settings | changes))
    resampling = Resampling(prompts_per_step=2, max_resampled=2.0, reward="math")
    return RolloutFeed(ledger, stream, engines, rewards, PAIR, resampling, stall_timeout_s=stall_timeout_s, warn=warn)


@pytest.fixture
def start(stream) -> Iterator[Callable[..., RolloutFeed]]:
    """Feeds of two prompts a step and two completions a prompt, closed after the test."""
    opened: list[RolloutFeed] = []

    def make(engines: Engines, rewards: Rewards | None = None, **changes) -> RolloutFeed:
        opened.append(make_feed(stream(), engines, rewards or Rewards(), **changes))
        return opened[-1]

    yield make
    for feed in opened:
        feed.__exit__()


@pytest.fixture
def beside() -> Iterator[Callable[..., Future]]:
    """Runs a call in another thread, so that the test can watch it wait."""
    with ThreadPoolExecutor() as threads:
        yield threads.submit


def hold(engines: Engines, *names: str) -> None:
    engines.held |= {f"{name}@0/{index}" for name in names for index in range(2)}


def release(engines: Engines, *names: str) -> None:
    engines.held -= {f"{name}@0/{index}" for name in names for index in range(2)}


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def is_still_waiting(taking: Future, feed: RolloutFeed, ready: int) -> bool:
    """Once `ready` groups are there to be taken, whether the call leaves them."""
    wait_until(lambda: taking.done() or sum(record.group is not None for record in feed.ledger.in_flight) == ready)
    time.sleep(0.05)
    return not taking.done()


@pytest.mark.parametrize("max_staleness, out", [(0, 2), (1, 4), (2, 6)])
def test_one_plus_k_steps_of_prompts_are_sampled_ahead(start, max_staleness, out):
    engines = Engines()
    feed = start(engines, max_staleness=max_staleness)
    for version in range(4):
        engines.version = version
        feed.take(2)
        assert engines.asked == [f"o{n}" for n in range(out + 2 * version)]
        assert len(feed.ledger.in_flight) == out - 2


def shuffled(seed: int) -> Callable[[list[Place]], list[Place]]:
    return lambda places: random.Random(seed).sample(places, len(places))


@pytest.mark.parametrize("dynamic_sampling", [False, True])
def test_on_policy_steps_do_not_depend_on_the_order_of_answers(start, dynamic_sampling):
    def three_steps(
        order: Callable[[list[Place]], list[Place]], seed: int
    ) -> tuple[list[list[ScoredGroup]], list[list[str]]]:
        late = random.Random(seed)
        engines = Engines(order)
        rewards = Rewards(equal=("o1@0", "o4@0", "o5@0"), seconds=lambda: late.random() / 100)
        feed = start(engines, rewards, dynamic_sampling=dynamic_sampling)
        taken = []
        for version in range(3):
            engines.version = version
            taken.append(feed.take(2))
        return taken, engines.calls

    taken, calls = three_steps(list, 0)
    if dynamic_sampling:  # o1, o4 and o5 have equal rewards
        assert [names(step) for step in taken] == [["o0", "o2"], ["o3", "o6"], ["o7", "o8"]]
        assert calls == [["o0", "o1"], ["o2"], ["o3", "o4"], ["o5"], ["o6"], ["o7", "o8"]]
    else:
        assert [names(step) for step in taken] == [["o0", "o1"], ["o2", "o3"], ["o4", "o5"]]
    assert [c.text for c in taken[0][0].body.group.completions] == ["o0@0/0", "o0@0/1"]
    assert taken[0][0].rewards == [0.0, 1.0]
    for seed in range(1, 6):
        assert plain(three_steps(shuffled(seed), seed)) == plain((taken, calls))


def test_a_take_waits_for_a_prompt_that_is_due(start, beside):
    engines = Engines()
    feed = start(engines, max_staleness=1)
    hold(engines, "o0")
    assert names(feed.take(2)) == ["o1", "o2"]  # o0 has time: it may be one version old
    engines.version = 1
    taking = beside(feed.take, 2)
    assert is_still_waiting(taking, feed, ready=3)  # o3 and the new o4, o5, and yet
    release(engines, "o0")
    assert names(taking.result(timeout=10)) == ["o0", "o3"]


def test_a_take_waits_for_one_of_two_prompts_that_are_due_together(start, beside):
    engines = Engines()
    feed = start(engines, prompts_per_step=1, max_staleness=2)
    hold(engines, "o0", "o1")
    assert names(feed.take(1)) == ["o2"]
    engines.version = 1
    taking = beside(feed.take, 1)
    assert is_still_waiting(taking, feed, ready=1)  # o3: were it taken, o0 or o1 would be left for version 3
    release(engines, "o1")
    assert names(taking.result(timeout=10)) == ["o1"]


@pytest.mark.parametrize("max_staleness", [0, 1, 2, 3])
def test_no_token_is_older_than_the_bound(start, max_staleness):
    late = random.Random(max_staleness)

    def slow_first(places: list[Place]) -> list[Place]:
        return late.sample(places, len(places))

    rewards = Rewards(seconds=lambda: late.choice([0.0, 0.0, 0.05]))
    feed = start(Engines(slow_first), rewards, max_staleness=max_staleness)
    staleness = []
    for version in range(15):
        feed.rollouts.version = version
        for group in feed.take(2):
            staleness += [version - span.version for trajectory in group.trajectories for span in trajectory.versions]
    assert max(staleness) <= max_staleness


def test_dynamic_sampling_replaces_groups_of_equal_rewards(start):
    engines = Engines()
    feed = start(engines, Rewards(equal=("o1@0", "o2@0")), dynamic_sampling=True)
    assert names(feed.take(2)) == ["o0", "o3"]
    assert engines.asked == ["o0", "o1", "o2", "o3"]
    assert feed.metrics()["rollout/groups_replaced"] == 2
    assert feed.metrics()["rollout/groups_replaced"] == 0  # since the last call


def test_a_step_that_replaces_more_than_half_of_its_groups_is_told_once(start):
    told: list[str] = []
    feed = start(Engines(), Rewards(equal=("o0@0", "o1@0", "o2@0")), dynamic_sampling=True, warn=told.append)
    assert names(feed.take(2)) == ["o3", "o4"]
    assert [line.partition(" groups")[0] for line in told] == ["step 1: dynamic sampling replaced 3 of 5"]
    feed.take(2)
    assert len(told) == 1


def test_a_run_without_any_signal_ends_instead_of_sampling_forever(start):
    engines = Engines()
    feed = start(engines, Rewards(equal=tuple(f"o{n}@0" for n in range(20))), dynamic_sampling=True)
    with pytest.raises(RunFailed, match=r"replaced 6 groups for one step of 2 prompts.* 100% of them all wrong"):
        feed.take(2)
    assert len(engines.asked) == 6


def test_without_dynamic_sampling_equal_rewards_are_taken(start):
    feed = start(Engines(), Rewards(equal=("o1@0",)))
    assert names(feed.take(2)) == ["o0", "o1"]


def test_a_restored_run_samples_interrupted_prompts_first(start):
    engines = Engines()
    saved_run = start(engines, max_staleness=1)
    hold(engines, "o0", "o3")
    trained = names(saved_run.take(2))
    state = json.loads(json.dumps(saved_run.state()))
    assert (trained, state) == (
        ["o1", "o2"],
        {"next_position": 4, "in_flight": [[0, 1], [3, 1]], "taken": 2, "dropped": 0, "skipped": {}},
    )

    engines = Engines()
    engines.version = 1
    resumed = start(engines, max_staleness=1)
    resumed.restore(state)
    for version in (1, 2, 3):
        engines.version = version
        trained += names(resumed.take(2))
    assert engines.asked[:4] == ["o0", "o3", "o4", "o5"]
    assert sorted(trained) == [f"o{n}" for n in range(8)]


def test_an_engine_error_is_raised_by_take(start):
    engines = Engines()
    feed = start(engines)
    engines.error = RuntimeError("engine 1 died")
    for _ in range(2):  # and goes on doing so
        with pytest.raises(RuntimeError, match="engine 1 died"):
            feed.take(2)


def test_an_engine_error_is_raised_by_score(start):
    engines = Engines()
    feed = start(engines)
    engines.error = RuntimeError("engine 1 died")
    with pytest.raises(RuntimeError, match="engine 1 died"):
        feed.score([feed.stream.at(position) for position in range(2)], PAIR)


def test_a_reward_worker_error_is_raised_by_take(start):
    rewards = Rewards()
    rewards.error = RuntimeError("worker 0 died")
    with pytest.raises(RuntimeError, match="worker 0 died"):
        start(Engines(), rewards).take(2)


def test_a_stalled_take_names_the_prompts_and_their_progress(start):
    engines, rewards = Engines(), Rewards()
    engines.held = {"o1@0/1"}
    engines.outstanding = [1]
    with pytest.raises(Stalled) as stalled:
        start(engines, rewards, stall_timeout_s=1.0).take(2)
    assert "1 prompts wait, engines have [1] completions to sample, reward workers [0] to score" in str(stalled.value)
    assert str(stalled.value).endswith("\n  o1@0: 1 completions sampled, 1 scored")

    engines, rewards = Engines(), Rewards()
    rewards.stuck = {"o0@0/0"}
    with pytest.raises(Stalled, match="\n  o0@0: 2 completions sampled, 1 scored"):
        start(engines, rewards, stall_timeout_s=1.0).take(2)


def test_slow_progress_is_not_a_stall(start):
    feed = start(Engines(seconds=0.5), stall_timeout_s=1.5)
    assert names(feed.take(2)) == ["o0", "o1"]  # four completions: 2 s


def test_held_out_prompts_keep_their_order_and_leave_the_ledger_alone(start):
    engines = Engines(order=lambda places: places[::-1])
    feed = start(engines, max_staleness=1)
    feed.take(2)
    hold(engines, "o2", "o3")  # of training; they are sampled already, or sampling goes on beside
    ledger = feed.state()
    heldout = [Prompt(id=f"h{n}@0", messages=[], token_ids=[n], reference="5", task="math") for n in (3, 1, 2)]
    groups = feed.score(heldout, Sampling(completions=3, max_tokens=8, temperature=1.0, seed=0))
    assert [group.group.prompt.id for group in groups] == ["h3@0", "h1@0", "h2@0"]
    assert [c.text for c in groups[1].group.completions] == ["h1@0/0", "h1@0/1", "h1@0/2"]
    assert feed.state() == ledger


def test_an_interrupted_take_leaves_every_prompt_in_the_ledger(start):
    engines = Engines()
    feed = start(engines)
    hold(engines, "o1")
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    StopSignals().listen()
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    try:
        with pytest.raises(Stop, match="SIGTERM"):
            feed.take(2)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    assert feed.state() == {"next_position": 2, "in_flight": [[0, 1], [1, 1]], "taken": 0, "dropped": 0, "skipped": {}}
    release(engines, "o1")
    assert names(feed.take(2)) == ["o0", "o1"]


def test_closing_cancels_prompts_in_flight_and_ends_the_thread(stream):
    engines = Engines()
    hold(engines, "o2")
    feed = make_feed(stream(), engines, Rewards(), max_staleness=1, stall_timeout_s=20.0)
    feed.take(2)
    began = time.monotonic()
    feed.__exit__()
    assert time.monotonic() - began < 15
    assert "experience" not in [thread.name for thread in threading.enumerate()]


def test_closing_cancels_scores_beside_running_completions(stream, caplog):
    engines, rewards = Engines(), Rewards()
    hold(engines, "o1")
    rewards.stuck = {"o0@0/0"}
    feed = make_feed(stream(), engines, rewards, max_staleness=0, stall_timeout_s=0.5)
    with pytest.raises(Stalled, match="o0@0: 2 completions sampled, 1 scored"):
        feed.take(2)
    feed.__exit__()
    del feed
    gc.collect()
    assert "Task was destroyed" not in caplog.text


def test_tokens_per_second_count_sampling_time_only(start):
    feed = start(Engines(seconds=0.05))
    feed.take(2)  # 4 completions of 3 tokens in a little over 0.2 s
    time.sleep(1.5)
    assert 8 < feed.metrics()["rollout/tokens_per_s"] <= 60
    assert feed.metrics()["rollout/tokens_per_s"] == 0
