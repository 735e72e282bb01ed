"""New ranks publish a version again that engines hold: only engines with other values load it."""

from __future__ import annotations

from tests.tiny.weights import Engine, open_run


def test_engines_with_equal_values_load_nothing_and_the_others_do() -> None:
    with open_run(max_lag=1, a=Engine(), b=Engine(broken=[False, True]), c=Engine(slow=True)) as run:
        for _ in range(2):
            run.permit("c")
            run.sync()
        run.until(lambda: run.states() == {"a": "serving", "b": "quarantined", "c": "serving"})
        run.until(lambda: run.versions() == {"a": 2, "b": 1, "c": 2})
        run.weights.learner_lost()
        late = run.join("late", Engine())
        run.bring(late)
        run.weights.sync(2)
        run.weights.settle()
        assert {name: engine.loads for name, engine in run.engines.items()} == {
            "a": [1, 2],
            "b": [1, 2, 2],
            "c": [1, 2],
            "late": [2],
        }
        assert set(run.versions().values()) == {2}


def test_an_engine_that_has_the_version_only_half_loads_it_from_new_ranks() -> None:
    with open_run(max_lag=1, a=Engine(slow=True)) as run:
        run.permit("a")
        run.sync()
        run.weights.settle()
        run.engines["a"].raises = OSError("the owner of the object has died")
        run.learner.dead = ["learner-0"]
        run.sync()
        run.permit("a")
        run.until(lambda: run.states() == {"a": "quarantined"})
        run.engines["a"].raises, run.learner.dead = None, []
        run.weights.learner_lost()
        run.permit("a")
        run.weights.sync(2)
        run.weights.settle()
        assert (run.engines["a"].loads, run.states(), run.lost) == ([1, 2, 2], {"a": "serving"}, {})


def test_an_engine_that_still_loads_the_dead_ranks_version_loads_the_new_ranks_too() -> None:
    with open_run(max_lag=4, a=Engine(), b=Engine()) as run:
        run.sync()
        run.until(lambda: run.versions() == {"a": 1, "b": 1})
        run.engines["b"].slow = True
        run.sync()
        run.until(lambda: run.versions()["a"] == 2 and len(run.engines["b"].loads) == 2)
        run.weights.learner_lost()
        run.learner.values_of = lambda version: version + 100
        run.weights.sync(2)
        run.permit("b")
        run.until(lambda: len(run.engines["b"].loads) == 3)
        run.permit("b")
        run.weights.settle()
        assert [engine.loads for engine in run.engines.values()] == [[1, 2, 2], [1, 2, 2]]


def test_every_engine_loads_where_a_replay_has_computed_other_values() -> None:
    with open_run(max_lag=0, a=Engine(), b=Engine()) as run:
        run.sync()
        run.weights.learner_lost()
        run.learner.values_of = lambda version: version + 100
        run.weights.sync(1)
        assert [engine.loads for engine in run.engines.values()] == [[1, 1], [1, 1]]
        run.weights.learner_lost()
        run.weights.sync(1)
        assert [engine.loads for engine in run.engines.values()] == [[1, 1], [1, 1]]
