"""Simulations on a virtual clock take the seconds that a calculation by hand gives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.async_parts.clock import VirtualBackground
from benchmarks.async_parts.engine import TimedEngine
from benchmarks.async_parts.loss_table import effective_time
from benchmarks.async_parts.losses import Faults, Losses, Part
from benchmarks.async_parts.lossy import simulate_losses
from benchmarks.async_parts.real import measure
from benchmarks.async_parts.settings import Policy, Scale
from benchmarks.async_parts.simulation import simulate
from benchmarks.async_parts.trace import Trace, Work, mean_length
from benchmarks.async_parts.workers import Parts
from rlframe.errors import Stalled
from rlframe.types import Prompt, SampledCompletion, Sampling


@pytest.fixture
def background() -> Iterator[VirtualBackground]:
    background = VirtualBackground("virtual", stall_timeout_s=1e9)
    yield background
    background.close()


def test_an_hour_passes_at_once_and_the_time_stands_still_after(background: VirtualBackground):
    started = time.monotonic()
    background.run(asyncio.sleep(3600))
    assert time.monotonic() - started < 60
    assert background.now() == 3600
    sum(range(100_000))  # work of the owner's thread takes no virtual time
    assert background.now() == 3600


def test_tasks_go_on_while_the_owner_waits_for_something_else(background: VirtualBackground):
    ends: list[float] = []

    async def task(seconds: float) -> None:
        await asyncio.sleep(seconds)
        ends.append(background.now())

    async def start() -> None:
        for seconds in (5, 2, 9):
            background.start(task(seconds))

    background.run(start())
    assert ends == []
    background.run(asyncio.sleep(6))
    assert ends == [2, 5]
    background.run(asyncio.sleep(6))
    assert (ends, background.now()) == ([2, 5, 9], 12)


def test_a_wait_without_progress_stalls_in_virtual_time():
    background = VirtualBackground("virtual", stall_timeout_s=60)
    with pytest.raises(Stalled, match="nothing moved"):
        background.run(background.wait(lambda: "nothing moved"))
    assert background.now() == pytest.approx(60)
    background.close()


def test_a_thread_of_an_executor_works_at_a_fixed_virtual_time(background: VirtualBackground):
    assert background.run(asyncio.to_thread(lambda: background.now())) == 0


def prompt(*lengths: int) -> Prompt:
    return Prompt(id="p", messages=[], token_ids=[1], reference="", task="math", extra={"lengths": list(lengths)})


async def sample(engine: TimedEngine, prompt: Prompt) -> list[tuple[float, SampledCompletion]]:
    """Arrival times and completions."""
    loop, sampling = asyncio.get_running_loop(), Sampling(completions=4, max_tokens=16, temperature=1.0, seed=0)
    return [(round(loop.time(), 6), sampled) async for sampled in engine.generate([prompt], sampling)]


def test_two_slots_take_completions_first_come_first_served(background: VirtualBackground):
    engine = TimedEngine("e", slots=2, token_s=0.1, load_s=0)
    arrivals = background.run(sample(engine, prompt(10, 4, 3, 5)))
    # The slot of completion 1 takes 2 at 0.4 s, then 3 at 0.7 s.
    assert [(at, sampled.index) for at, sampled in arrivals] == [(0.4, 1), (0.7, 2), (1.0, 0), (1.2, 3)]
    progress = background.run(engine.progress())
    assert (progress.tokens, round(progress.busy_slot_s, 6)) == (22, 2.2)


def test_a_load_pauses_completions_and_gives_them_two_versions(background: VirtualBackground):
    engine = TimedEngine("e", slots=4, token_s=0.1, load_s=2.0)

    async def load_meanwhile() -> list[tuple[float, SampledCompletion]]:
        sampling = asyncio.create_task(sample(engine, prompt(4, 12, 5, 6)))
        await asyncio.sleep(0.5)
        await engine.load(SimpleNamespace(version=1))
        return await sampling

    arrivals = {sampled.index: (at, sampled.completion.versions) for at, sampled in background.run(load_meanwhile())}
    spans = {g: (at, [(s.version, s.start, s.end) for s in versions]) for g, (at, versions) in arrivals.items()}
    assert spans == {
        0: (0.4, [(0, 0, 4)]),
        1: (3.2, [(0, 0, 5), (1, 5, 12)]),
        2: (0.5, [(0, 0, 5)]),
        3: (2.6, [(0, 0, 5), (1, 5, 6)]),
    }


def test_an_engine_of_half_the_speed_takes_twice_the_time(background: VirtualBackground):
    engine = TimedEngine("e", slots=2, token_s=0.1, load_s=0)

    async def slow_down() -> list[tuple[float, SampledCompletion]]:
        sampling = asyncio.create_task(sample(engine, prompt(10, 4, 3, 5)))
        await asyncio.sleep(0.5)
        engine.set_speed(0.5)
        return await sampling

    # At 0.5 s completion 0 lacks 5 tokens, and completion 2 lacks 2.
    arrivals = background.run(slow_down())
    assert [(at, sampled.index) for at, sampled in arrivals] == [(0.4, 1), (0.9, 2), (1.5, 0), (1.9, 3)]


def test_a_closed_call_leaves_its_slots_to_the_next(background: VirtualBackground):
    engine = TimedEngine("e", slots=2, token_s=0.1, load_s=0)

    async def close_the_first() -> list[tuple[float, SampledCompletion]]:
        first = asyncio.create_task(sample(engine, prompt(100, 100, 100, 100)))
        await asyncio.sleep(0)
        second = asyncio.create_task(sample(engine, prompt(1, 1, 1, 1)))
        await asyncio.sleep(3)
        first.cancel()
        return await second

    assert [at for at, _ in background.run(close_the_first())] == [3.1, 3.1, 3.2, 3.2]


def test_the_trace_is_the_same_everywhere_and_has_its_mean():
    assert Trace(group=4, seed=0)[0] == [1134, 877, 1898, 1111]
    lengths = [length for prompt in range(4000) for length in Trace(group=16, seed=0)[prompt]]
    assert sum(lengths) / len(lengths) == pytest.approx(mean_length(), rel=0.01)
    assert mean_length() == pytest.approx(1631, abs=1)
    assert max(lengths) == 16_000


def test_the_bound_is_the_longest_of_slots_completion_and_learner():
    work = {"tokens": 6000, "longest": 900, "slots": 4, "token_s": 0.01, "learner_s": 12.0}
    assert Work(**work).bound_s == 15  # 6000 * 0.01 / 4
    assert Work(**work | {"longest": 1700}).bound_s == 17
    assert Work(**work | {"learner_s": 20.0}).bound_s == 20


def test_on_policy_steps_take_the_longest_completion_and_the_learner():
    scale = Scale(engines=2, slots=4, worker_engines=1, prompts=2, group=4, steps=2, learner=1.0)
    figures = simulate(scale, Policy(max_staleness=0))
    # Every completion has a slot at once, so a step samples for as long as the longest of its 8 completions.
    trace = Trace(group=4, seed=0)
    longest = [max(trace[0] + trace[1]), max(trace[2] + trace[3])]
    assert figures.seconds == pytest.approx(sum(longest) * 0.001 + 2 * scale.step_s)
    assert (figures.completions, figures.longest) == (16, max(longest))
    assert figures.tokens == sum(sum(trace[prompt]) for prompt in range(4))
    assert figures.tokens_by_age.keys() == {0}


def test_loads_and_rewards_take_their_seconds_on_policy():
    scale = Scale(engines=2, slots=4, worker_engines=1, prompts=2, group=4, steps=2)
    slow = replace(scale, load_s=3.0, publish_s=5.0, reward_s=7.0)
    seconds = simulate(slow, Policy(max_staleness=0)).seconds - simulate(scale, Policy(max_staleness=0)).seconds
    assert seconds == pytest.approx(2 * (3 + 5 + 7))


def test_admission_by_slots_keeps_the_engines_busy_with_young_tokens():
    scale = Scale(engines=2, slots=32, prompts=4, group=16, steps=24)
    waiting = simulate(scale, Policy(max_staleness=1))
    masking = simulate(scale, Policy(max_staleness=8, late="mask"))
    assert masking.share_of_bound > 3 * waiting.share_of_bound
    assert masking.slots_idle < 0.1 < 0.6 < waiting.slots_idle
    assert waiting.largest_age == 1
    assert masking.mean_age < 4.5
    # The slots' work is the trace, whoever decides: both trained on as many completions of the same kind.
    assert masking.completions == waiting.completions == 24 * 64


def test_equal_seeds_give_equal_simulations():
    scale = Scale(engines=2, slots=16, worker_engines=1, prompts=2, group=8, steps=8, load_s=0.1, reward_s=0.2)
    first, second, other = (
        simulate(replace(scale, seed=seed), Policy(max_staleness=4, late="keep")) for seed in (1, 1, 2)
    )
    assert (first.seconds, first.tokens_by_age) == (second.seconds, second.tokens_by_age)
    assert first.seconds != other.seconds


def test_a_users_engine_takes_the_place_of_the_timed_one():
    class TwiceAsFast(TimedEngine):
        def __init__(self, name: str, *, slots: int, token_s: float, load_s: float) -> None:
            super().__init__(name, slots=slots, token_s=token_s / 2, load_s=load_s)

    scale = Scale(engines=1, slots=8, prompts=1, group=8, steps=2, learner=0.0)
    usual = simulate(scale, Policy(max_staleness=0))
    fast = simulate(scale, Policy(max_staleness=0), Parts(engine=TwiceAsFast))
    assert fast.seconds == pytest.approx(usual.seconds / 2)


class ScriptedFaults(Faults):
    """Deaths at steps that are counted from 1, and again from where a replay begins."""

    def __init__(self, deaths: dict[int, tuple[Part, float]]) -> None:
        super().__init__(0.0, seed=0)
        self.deaths = deaths
        self.steps = 0

    def begin_step(self) -> float | None:
        self.steps += 1
        part, share = self.deaths.get(self.steps, ("", 0.0))
        if part == "engine":
            self.kill_engine(share)
        return share if part == "learner" else None


SMALL = Scale(engines=2, slots=4, prompts=2, group=4, steps=4, token_s=0.02)
RECOVERY = Losses(share=0.0, engine_start_s=50.0, learner_restart_s=70.0, checkpoint_every=2, checkpoint_write_s=0.0)


def test_a_learners_death_costs_restart_replay_and_the_broken_step():
    policy = Policy(max_staleness=0)
    without = simulate_losses(SMALL, policy, RECOVERY)
    # Half of step 4 is in vain; new ranks load the checkpoint of step 2, and take step 3 again.
    figures = simulate_losses(SMALL, policy, RECOVERY, ScriptedFaults({4: ("learner", 0.5)}))
    assert figures.seconds - without.seconds == pytest.approx(70 + (1 + 0.5) * SMALL.step_s)
    assert (figures.steps_again, figures.tokens_again) == (1, 0)
    assert (figures.restart_s, figures.again_s) == pytest.approx((70, SMALL.step_s))
    assert figures.tokens_by_age == without.tokens_by_age


def test_an_engines_death_costs_at_most_a_second_of_its_tokens():
    policy = Policy(max_staleness=4, late="mask")
    without = simulate_losses(SMALL, policy, RECOVERY)
    figures = simulate_losses(SMALL, policy, RECOVERY, ScriptedFaults({2: ("engine", 0.3)}))
    assert 0 < figures.tokens_again <= SMALL.slots * 1.0 / SMALL.token_s
    assert (figures.tokens, figures.steps_again) == (without.tokens, 0)
    assert figures.seconds > without.seconds


def test_losses_take_a_share_of_the_time_the_same_for_equal_seeds():
    scale, losses = replace(SMALL, steps=30), replace(RECOVERY, share=0.2)
    first, again = (simulate_losses(scale, Policy(max_staleness=4, late="mask"), losses) for _ in range(2))
    without = simulate_losses(scale, Policy(max_staleness=4, late="mask"), RECOVERY)
    assert first.seconds == again.seconds
    assert first.engine_losses and first.learner_losses and first.steps_again
    assert 0.3 < effective_time(without, first) < 0.95


def test_the_drivers_cpu_is_measured_over_real_actors(tmp_path: Path):
    scale = Scale(engines=2, slots=16, worker_engines=1, prompts=4, group=4, steps=4, token_s=1e-5)
    figures, cpu = measure(scale, Parts(), tmp_path)
    assert (figures.completions, cpu.completions) == (64, 32)  # two steps are warm-up
    assert figures.tokens_by_age.total() == figures.tokens > 0
    assert min(cpu.take, cpu.step) > 0
    assert len(list(tmp_path.rglob("*.gz"))) >= 4  # a file of rollouts for each step
