"""Loads beside training: who is waited for, who is older, and which versions stay alive."""

from __future__ import annotations

import pytest

from rlframe.errors import RunFailed
from tests.tiny.weights import Engine, open_run


def test_a_slow_engine_is_older_and_not_waited_for_within_the_bound() -> None:
    with open_run(max_lag=2, a=Engine(), b=Engine(slow=True)) as run:
        synced = [run.sync(), run.sync()]
        run.until(lambda: run.versions()["a"] == 2)
        assert run.versions() == {"a": 2, "b": 0}
        assert (run.pool.version, run.pool.oldest_version) == (2, 0)
        assert synced[1].engines_behind >= 1
        assert run.engines["b"].loads == [1]


def test_at_the_bound_the_learner_waits_for_the_slow_engine() -> None:
    with open_run(max_lag=1, a=Engine(), b=Engine(slow=True)) as run:
        run.sync()
        second = run.beside(run.sync)
        run.until(lambda: run.versions()["a"] == 2)
        assert not second.done()  # b would be two versions behind
        run.permit("b")
        second.result()
        assert run.versions()["b"] == 1
        assert run.pool.oldest_version >= run.pool.version - 1


def test_a_slow_engine_goes_straight_to_the_newest_version() -> None:
    with open_run(max_lag=3, a=Engine(), b=Engine(slow=True)) as run:
        for _ in range(3):
            run.sync()
        run.permit("b")
        run.until(lambda: len(run.engines["b"].loads) == 2)
        run.permit("b")
        run.weights.settle()
        assert run.engines["b"].loads == [1, 3]
        assert run.versions() == {"a": 3, "b": 3}


def test_without_lag_every_engine_has_the_version_after_a_sync() -> None:
    with open_run(max_lag=0, a=Engine(), b=Engine(slow=True)) as run:
        first = run.beside(run.sync)
        run.until(lambda: run.versions()["a"] == 1)
        assert not first.done()
        run.permit("b")
        assert first.result().engines_behind == 0
        assert run.versions() == {"a": 1, "b": 1}


def test_three_versions_at_most_are_alive() -> None:
    with open_run(max_lag=8, a=Engine(slow=True), b=Engine(slow=True), c=Engine(slow=True)) as run:
        run.sync()  # all load version 1
        run.sync()
        run.permit("a")
        run.until(lambda: run.engines["a"].loads == [1, 2])
        run.sync()  # b, c load version 1; a loads version 2; the newest is version 3
        fourth = run.beside(run.sync)
        run.permit("b")
        run.until(lambda: run.engines["b"].loads == [1, 3])
        assert not fourth.done()  # versions 1, 2 and 3 leave no room for a fourth
        run.permit("c")
        fourth.result()
        assert run.learner.most_alive == 3


def test_a_settled_run_keeps_one_version_alive() -> None:
    with open_run(max_lag=4, a=Engine(), b=Engine(slow=True)) as run:
        for _ in range(3):
            run.sync()
        settled = run.beside(run.weights.settle)
        for _ in range(2):
            run.permit("b")
        settled.result()
        assert [reference.snapshot.version for reference in run.learner.alive] == [3]


def test_a_late_engine_loads_the_newest_version_and_serves() -> None:
    with open_run(max_lag=1, a=Engine()) as run:
        before = run.join("early", Engine())
        run.bring(before)
        assert (before.state, run.engines["early"].loads) == ("serving", [])
        run.sync()
        run.sync()
        late = run.join("late", Engine())
        run.bring(late)
        assert (late.state, late.version, run.engines["late"].loads) == ("serving", 2, [2])


def test_a_late_engine_does_not_hold_up_a_sync_and_catches_up() -> None:
    with open_run(max_lag=1, a=Engine()) as run:
        run.sync()
        late = run.join("late", Engine(slow=True))
        bringing = run.beside(lambda: run.bring(late))
        run.until(lambda: run.engines["late"].loads == [1])
        run.sync()
        run.sync()
        assert late.state == "starting"
        run.permit("late")
        run.until(lambda: run.engines["late"].loads == [1, 3])
        assert not bringing.done()  # nobody asks the engine for tokens of version 1
        run.permit("late")
        bringing.result()
        assert (late.state, late.version, run.engines["late"].loads) == ("serving", 3, [1, 3])


def test_an_engine_whose_load_raises_is_lost_and_the_others_go_on() -> None:
    with open_run(max_lag=2, a=Engine(), b=Engine(raises=MemoryError("no room"))) as run:
        run.sync()
        run.weights.settle()
        assert run.states() == {"a": "serving", "b": "dead"}
        assert run.lost == {"b": "b failed to load version 1: MemoryError('no room')"}
        run.sync()
        run.weights.settle()
        assert (run.versions()["a"], run.engines["b"].loads) == (2, [1])


def test_without_anyone_to_replace_engines_a_load_that_raises_ends_the_run() -> None:
    with open_run(max_lag=2, a=Engine(), b=Engine(raises=MemoryError("no room"))) as run:
        run.pool.on_loss = None
        run.sync()
        run.until(lambda: run.states()["b"] == "dead")
        with pytest.raises(RunFailed, match=r"^b failed to load version 1: MemoryError\('no room'\)"):
            run.background.run(run.background.wait(lambda: "no error"))


def test_a_late_engine_whose_load_raises_is_lost_too() -> None:
    with open_run(max_lag=2, a=Engine()) as run:
        run.sync()
        late = run.join("late", Engine(raises=MemoryError("no room")))
        run.bring(late)
        assert (late.state, list(run.lost)) == ("dead", ["late"])


def test_an_engine_that_never_ends_a_load_is_lost_after_the_bound() -> None:
    with open_run(max_lag=1, timeout_s=0.05, a=Engine(), b=Engine(slow=True)) as run:
        run.sync()
        run.weights.settle()
        assert run.states() == {"a": "serving", "b": "dead"}
        assert run.lost["b"].startswith("b failed to load version 1: Stalled('b did not load version 1 within 0.05 s")


def test_nobody_waits_for_a_late_engine_s_first_load() -> None:
    with open_run(max_lag=0, a=Engine()) as run:
        run.sync()
        late = run.join("late", Engine(slow=True))
        bringing = run.beside(lambda: run.bring(late))
        run.until(lambda: run.engines["late"].loads == [1])
        run.sync()  # returns, and so does an evaluation's wait
        run.weights.settle()
        assert (late.state, run.versions()["a"]) == ("starting", 2)
        run.permit("late")
        run.until(lambda: run.engines["late"].loads == [1, 2])
        run.permit("late")
        bringing.result()
        assert (late.state, late.version) == ("serving", 2)


def test_a_load_that_fails_because_ranks_died_waits_for_whole_weights() -> None:
    with open_run(max_lag=1, a=Engine(raises=MemoryError("owner died"))) as run:
        run.learner.dead = ["learner-1"]
        run.sync()
        run.until(lambda: run.states() == {"a": "quarantined"})
        run.learner.dead, run.engines["a"].raises = [], None
        run.sync()
        run.weights.settle()
        assert (run.lost, run.states(), run.learner.published) == ({}, {"a": "serving"}, [(1, False), (2, True)])


def test_a_late_engine_waits_for_the_weights_of_new_ranks() -> None:
    """The objects that dead ranks published are gone; the repair publishes every value anew."""
    with open_run(max_lag=1, a=Engine()) as run:
        run.sync()
        run.weights.learner_lost()
        late = run.join("late", Engine())
        run.bring(late)
        assert (late.state, run.engines["late"].loads, run.weights.needs_repair) == ("starting", [], True)
        run.weights.repair()
        run.until(lambda: late.state == "serving")
        assert run.learner.published == [(1, False), (1, True)]
        assert (run.engines["late"].loads, run.engines["a"].loads) == ([1], [1])


def test_an_engine_that_dies_in_mid_load_ends_no_run() -> None:
    with open_run(max_lag=1, a=Engine(), b=Engine(slow=True)) as run:
        run.sync()
        run.pool.replicas.end("b")
        run.weights.settle()
        assert run.versions()["a"] == 1


def test_the_report_has_the_loads_since_the_previous_report() -> None:
    with open_run(max_lag=1, a=Engine(), b=Engine()) as run:
        run.sync()
        run.weights.settle()
        run.learner.version += 1
        metrics = run.weights.sync(2).metrics()
        assert metrics["weights/loads"] >= 2 and metrics["rollout/stall_s"] >= 1.0
        assert metrics["time/weight_sync_s"] == pytest.approx(
            metrics["time/weight_publish_s"] + metrics["time/weight_wait_s"]
        )


def test_an_engine_that_serves_just_before_a_delivery_loads_too() -> None:
    with open_run(max_lag=0, a=Engine()) as run:
        run.sync()
        late = run.join("late", Engine())
        receivers = run.pool.replicas.serving()  # as a sync chooses them
        run.bring(late)
        run.learner.version = 2
        run.transport.deliver(run.learner.publish(whole=False), receivers, whole=False)
        run.weights.settle()
        assert run.versions() == {"a": 2, "late": 2}
