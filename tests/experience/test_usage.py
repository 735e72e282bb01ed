"""Speed and idle slots of engines between two steps."""

from __future__ import annotations

from dataclasses import replace

from rlframe.experience.usage import Usage
from rlframe.rollout.messages import EngineReport, EpisodeReport


def report(refusals: int = 0, **engines: tuple[int, float, int]) -> EpisodeReport:
    """Name of an engine -> tokens, busy slot seconds and recomputed tokens since its start."""
    reports = [
        EngineReport(
            name=name, completions=1, tokens=tokens, version=0, loading=False, silent_s=0.0, busy_slot_s=busy,
            recomputed_tokens=recomputed,
        )
        for name, (tokens, busy, recomputed) in engines.items()
    ]  # fmt: skip
    return EpisodeReport(orders=1, completions=1, scoring={}, scoring_silent_s=0.0, engines=reports, refusals=refusals)


def test_a_step_s_use_of_the_engines_is_between_its_reports() -> None:
    usage = Usage(slots=4)
    usage.advance(0.0, sampling=True)
    usage.note("episode-0", report(a=(0, 0.0, 0), b=(0, 0.0, 0)), 0.0)
    usage.advance(10.0, sampling=True)
    usage.note("episode-0", report(a=(300, 20.0, 5), b=(500, 30.0, 0), refusals=1), 10.0)
    usage.finish(300)
    usage.finish(500)
    # 50 of 2 x 4 x 10 slot seconds were in use
    assert usage.take() == {
        "rollout/tokens_per_s": 80.0, "rollout/slots_idle": 0.375,
        "rollout/recomputed_tokens": 5.0, "rollout/refused": 1.0,
    }  # fmt: skip
    usage.advance(15.0, sampling=True)
    usage.note("episode-0", report(a=(400, 40.0, 5), refusals=3), 15.0)  # b reports a moment later
    usage.finish(100)
    assert usage.take() == {
        "rollout/tokens_per_s": 20.0, "rollout/slots_idle": 0.0,
        "rollout/recomputed_tokens": 0.0, "rollout/refused": 2.0,
    }  # fmt: skip


def test_speed_counts_seconds_of_sampling_and_idle_slots_count_all() -> None:
    usage = Usage(slots=4)
    usage.note("episode-0", report(a=(0, 0.0, 0)), 0.0)
    usage.advance(2.0, sampling=True)
    usage.advance(7.0, sampling=False)
    usage.advance(10.0, sampling=False)  # the learner computes
    usage.note("episode-0", report(a=(100, 10.0, 0)), 10.0)
    usage.finish(100)
    metrics = usage.take()
    assert (metrics["rollout/tokens_per_s"], metrics["rollout/slots_idle"]) == (20.0, 0.75)


def test_a_step_shorter_than_a_report_has_a_speed_and_no_idle_share() -> None:
    usage = Usage(slots=4)
    usage.advance(0.0, sampling=True)
    usage.advance(0.5, sampling=False)
    usage.finish(60)
    metrics = usage.take()
    assert metrics == {"rollout/tokens_per_s": 120.0, "rollout/recomputed_tokens": 0.0, "rollout/refused": 0.0}


def test_an_engine_that_starts_again_counts_from_its_start() -> None:
    usage = Usage(slots=4)
    usage.advance(0.0, sampling=True)
    usage.note("episode-0", report(a=(1000, 50.0, 0)), 0.0)
    usage.advance(5.0, sampling=True)
    usage.note("episode-0", report(a=(10, 1.0, 0)), 5.0)
    usage.advance(10.0, sampling=True)
    usage.note("episode-0", report(a=(110, 6.0, 0)), 10.0)
    assert usage.take()["rollout/slots_idle"] == 0.75


def test_an_engine_s_whole_life_is_no_step_after_a_worker_s_loss() -> None:
    usage = Usage(slots=8)
    usage.note("episodes-0", report(a=(1_000_000, 8000.0, 50_000)), 1000.0)
    usage.take()
    unknown = report(a=(0, 0.0, 0))  # the next worker has no answer of the engine yet
    usage.note("episodes-1", replace(unknown, engines=[replace(unknown.engines[0], answered=False)]), 1001.0)
    usage.note("episodes-1", report(a=(1_000_100, 8008.0, 50_000)), 1010.0)
    metrics = usage.take()
    assert (metrics["rollout/slots_idle"], metrics["rollout/recomputed_tokens"]) == (0.9, 0.0)  # 8 of 80 slot seconds
