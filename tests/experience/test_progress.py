"""Stalls by verdicts and loads, on the reports of simulated minutes."""

from __future__ import annotations

from dataclasses import replace

from rlframe.experience.progress import Progress
from rlframe.rollout.messages import EngineReport, EpisodeReport

BOUND_S = 60.0


def engine(name: str = "rollout-0", **changes: float | bool) -> EngineReport:
    idle = EngineReport(
        name=name, completions=0, tokens=0, version=0, loading=False, silent_s=0.0, busy_slot_s=0.0, recomputed_tokens=0
    )
    return replace(idle, **changes)  # pyright: ignore[reportArgumentType]


def report(*engines: EngineReport, scoring: dict[str, int] | None = None, verdict_s: float = 0.0) -> EpisodeReport:
    completions = sum(engine.completions for engine in engines)
    return EpisodeReport(
        orders=1, completions=completions, scoring=scoring or {}, scoring_silent_s=verdict_s, engines=list(engines)
    )


def test_the_longest_silent_engine_is_first_and_stalls_no_run() -> None:
    progress = Progress(BOUND_S)
    progress.begin_wait(0.0)
    for second in range(1, 101):
        lively = [engine(f"rollout-{index}", completions=8, tokens=800 * second) for index in range(2)]
        silent = engine("rollout-2", completions=3, tokens=7, silent_s=float(second), version=4)
        progress.note("episode-0", report(*lively, silent), second)
        assert progress.problem(second) is None  # its episode worker has it replaced
    lines = progress.describe().splitlines()
    assert lines[0] == "  rollout-2: 3 completions, 0 tokens/s, no token for 100 s, version 4"
    assert lines[1] == "  rollout-0: 8 completions, 800 tokens/s, version 0"


def test_a_load_must_end() -> None:
    progress = Progress(BOUND_S)
    progress.begin_wait(0.0)
    loads = engine("rollout-2", completions=5, loading=True, silent_s=500.0)
    for second in (1, 30, 60):
        progress.note("episode-0", report(loads), second)
        assert progress.problem(second) is None
    progress.note("episode-0", report(replace(loads, version=1)), 61)  # the load has ended, and the next has begun
    assert progress.problem(61) is None
    progress.note("episode-0", report(replace(loads, version=1)), 121)
    assert progress.problem(121) == (
        "rollout-2 has not ended the load of new weights after 60 s (cluster.stall_timeout_s=60)"
    )
    assert progress.describe().endswith("version 1, loads new weights")


def test_reward_workers_that_give_no_verdict_are_named() -> None:
    progress = Progress(BOUND_S)
    progress.begin_wait(0.0)
    busy = {"reward-0": 3, "reward-1": 1}
    progress.note("episode-0", report(scoring=busy, verdict_s=59.0), 59)
    assert progress.problem(59) is None
    progress.note("episode-0", report(scoring=busy, verdict_s=60.0), 60)
    assert progress.problem(60) == (
        "no reward worker gave a verdict for 60 s (cluster.stall_timeout_s=60) (reward-0, reward-1)"
    )
    assert progress.describe() == (
        "  verdicts for episode-0: reward-0 has 3, reward-1 has 1 in flight; the last came 60 s ago"
    )


def test_an_episode_worker_that_reports_no_more_is_named() -> None:
    progress = Progress(BOUND_S)
    progress.begin_wait(0.0)
    progress.note("episode-0", report(engine(completions=1)), 1)
    for second in range(2, 62):
        progress.note("episode-1", report(engine("rollout-1", completions=1)), second)
    assert progress.problem(61) == "episode worker episode-0 has sent no report for 60 s (cluster.stall_timeout_s=60)"


def test_a_wait_with_nothing_in_flight_is_a_bug_that_says_so() -> None:
    progress = Progress(BOUND_S)
    for second in range(1000):  # the learner computes, and nobody waits
        progress.note("episode-0", report(engine()), second)
    progress.begin_wait(1000.0)
    for second in range(1000, 1061):
        progress.note("episode-0", report(engine()), second)
        assert (progress.problem(second) is None) == (second < 1060)
    assert progress.problem(1060) == (
        "nothing is in flight at engines and reward workers, and yet a step waits for groups, for 60 s "
        "(cluster.stall_timeout_s=60): a bug of rlframe"
    )


def test_a_message_names_sixteen_engines_of_a_thousand() -> None:
    progress = Progress(BOUND_S)
    progress.note("episode-0", report(*[engine(f"rollout-{index}") for index in range(1000)]), 1)
    assert progress.describe().splitlines()[15:] == [
        "  rollout-15: 0 completions, 0 tokens/s, version 0", "  984 more engines"
    ]  # fmt: skip


def test_the_last_engine_of_a_worker_that_has_left_is_described_no_more() -> None:
    progress = Progress(60)
    progress.note("episodes-0", report(engine("rollout-0", loading=True)), 0)
    progress.note("episodes-0", replace(report(scoring={"reward-0": 1}), engines=None), 1)  # between two heartbeats
    assert [each.report.name for each in progress.engines()] == ["rollout-0"]
    progress.note("episodes-0", report(scoring={"reward-0": 1}), 2)
    assert progress.engines() == [] and progress.problem(61) is None


def test_an_engine_that_has_left_is_watched_no_more() -> None:
    progress = Progress(BOUND_S)
    progress.note("episode-0", report(engine(loading=True), engine("rollout-1")), 1.0)
    progress.note("episode-0", report(engine(loading=True), engine("rollout-1")), 61.0)
    assert progress.problem(61.0) is not None
    progress.note("episode-0", replace(report(), broken={"rollout-0": "three refusals in a row"}), 61.5)
    assert progress.problem(61.5) is None
    progress.note("episode-0", report(engine("rollout-1")), 62.0)
    assert progress.describe() == "  rollout-1: 0 completions, 0 tokens/s, version 0"


def test_a_load_that_waits_through_a_step_for_a_repair_stalls_no_take() -> None:
    progress = Progress(BOUND_S)
    for second in range(1, 91):  # the learner computes
        progress.note("episode-0", report(engine(loading=True)), second)
    progress.begin_wait(90.0)
    assert progress.problem(90.0) is None
    for second in range(91, 151):
        progress.note("episode-0", report(engine(loading=True)), second)
        assert (progress.problem(second) is None) == (second < 150)
