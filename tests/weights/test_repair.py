"""Which engines receive a version, and which are repaired; without actors."""

from __future__ import annotations

from rlframe.actors.replicas import ReplicaState
from tests.tiny.weights import Engine, open_run


def test_only_the_engine_with_broken_weights_gets_the_whole_version() -> None:
    with open_run(max_lag=0, a=Engine(), b=Engine(broken=[True])) as run:
        synced = run.sync()
        assert run.learner.published == [(1, False), (1, True)]
        assert (run.engines["a"].loads, run.engines["b"].loads) == ([1], [1, 1])
        assert (synced.version, synced.repaired, synced.bytes, run.pool.version) == (1, ["b"], 20, 1)
        assert run.states() == {"a": "serving", "b": "serving"}


def test_an_engine_with_wrong_weights_twice_in_a_row_is_lost() -> None:
    with open_run(max_lag=0, a=Engine(), b=Engine(broken=[True, True])) as run:
        assert run.sync().repaired == []
        assert run.states() == {"a": "serving", "b": "dead"}
        [reason] = run.lost.values()
        assert reason.startswith("weights of version 1 arrived broken, twice: b (w); check the memory")


def test_beside_training_the_next_sync_repairs_with_whole_values() -> None:
    with open_run(max_lag=1, a=Engine(), b=Engine(broken=[True])) as run:
        run.sync()
        run.until(lambda: run.states()["b"] == "quarantined")
        second = run.sync()
        run.weights.settle()
        assert run.learner.published == [(1, False), (2, True)]
        assert run.versions() == {"a": 2, "b": 2}
        assert second.repaired + run.sync().repaired == ["b"]


def test_beside_training_the_second_wrong_load_of_an_engine_loses_it_too() -> None:
    with open_run(max_lag=1, a=Engine(), b=Engine(broken=[True, True])) as run:
        run.sync()
        run.until(lambda: run.states()["b"] == "quarantined")
        run.sync()
        run.weights.settle()
        assert run.states() == {"a": "serving", "b": "dead"} and list(run.lost) == ["b"]


def test_a_repair_loads_no_version_twice_into_an_engine_that_is_late_with_it() -> None:
    with open_run(max_lag=1, a=Engine(slow=True), b=Engine(broken=[True])) as run:
        run.sync()
        run.until(lambda: run.weights.needs_repair)
        run.weights.repair()  # publishes version 1 anew, while a still loads version 1
        run.permit("a")
        run.weights.settle()
        assert run.versions() == {"a": 1, "b": 1}
        assert (run.engines["a"].loads, run.engines["b"].loads) == ([1], [1, 1])


def test_a_version_of_deltas_does_not_repair_an_engine() -> None:
    with open_run(max_lag=3, a=Engine(), b=Engine(slow=True, broken=[True])) as run:
        run.sync()
        run.sync()  # published before b's first load has failed
        run.permit("b")
        run.until(lambda: run.states()["b"] == "quarantined")
        run.sync()
        run.permit("b")
        run.weights.settle()
        assert run.learner.published == [(1, False), (2, False), (3, True)]
        assert run.engines["b"].loads == [1, 3]


def test_an_evaluation_s_wait_repairs_an_engine_at_the_same_version() -> None:
    with open_run(max_lag=1, a=Engine(broken=[True])) as run:
        run.sync()
        run.weights.settle()
        assert run.learner.published == [(1, False), (1, True)]
        assert run.states() == {"a": "serving"} and run.versions() == {"a": 1}


def test_an_only_engine_is_repaired_between_two_steps() -> None:
    with open_run(max_lag=1, a=Engine(slow=True, broken=[True])) as run:
        run.sync()
        assert not run.weights.needs_repair
        run.permit("a")
        run.until(lambda: run.weights.needs_repair)
        run.weights.repair()
        assert not run.weights.needs_repair  # the repair is on its way
        run.weights.repair()
        run.permit("a")
        run.until(lambda: run.states() == {"a": "serving"})
        assert run.learner.published == [(1, False), (1, True)]


def test_an_engine_that_dies_with_wrong_weights_is_not_repaired() -> None:
    with open_run(max_lag=1, a=Engine(), b=Engine(broken=[True])) as run:
        run.sync()
        run.until(lambda: run.weights.needs_repair)
        run.pool.replicas.end("b")
        run.sync()
        run.weights.settle()
        assert run.learner.published == [(1, False), (2, False)]


def test_dead_and_starting_engines_get_no_weights() -> None:
    states = dict(zip("abcd", ("SERVING", "DEAD", "STARTING", "QUARANTINED"), strict=True))
    with open_run(max_lag=0, **{name: Engine() for name in states}) as run:
        for name, state in states.items():
            run.pool.replicas[name].state = ReplicaState[state]
        run.sync()
        assert [name for name, engine in run.engines.items() if engine.loads] == ["a", "d"]
        assert list(run.states().values()) == ["serving", "dead", "starting", "serving"]


def test_a_late_engine_with_broken_weights_is_quarantined_until_a_sync() -> None:
    with open_run(max_lag=0, a=Engine()) as run:
        run.sync()
        late = run.join("b", Engine(broken=[True]))
        run.bring(late)
        assert late.state == "quarantined"
        run.sync()
        assert late.state == "serving"
