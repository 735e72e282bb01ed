"""Waits and activities of a process have names, beginnings and, for waits, bounds."""

from __future__ import annotations

import threading

import pytest

from rlframe.actors.activity import doing, longest, note
from rlframe.actors.waits import Wait, open_waits, waiting


def text() -> str | None:
    found = longest()
    return found.text if found else None


def test_a_wait_is_open_while_its_block_runs():
    with pytest.raises(ArithmeticError), waiting(["learner-0"], "take step 7", 60.0, "a.bound"):
        [wait] = open_waits()
        assert str(wait) == "learner-0 to take step 7 (a.bound=60)"
        raise ArithmeticError
    assert open_waits() == []


def test_a_wait_concerns_an_actor_or_all_actors_of_a_kind():
    wait = Wait(actors=["learner-1", "rollout"], doing="answer", bound_s=1.0, bound="a.bound")
    named = ["learner-0", "learner-1", "learner-10", "rollout-3", "reward-0"]
    assert [name for name in named if wait.concerns(name)] == ["learner-1", "rollout-3"]


def test_an_answer_moves_a_wait_and_leaves_the_others():
    with waiting(["learner-0", "learner-1"], "take step 7", 60.0, "a.bound") as wait:
        wait.answered("learner-1")
    assert wait.actors == ["learner-0"] and wait.moved_at >= wait.since


def test_work_inside_work_is_told_in_its_place():
    assert text() is None
    with doing("step 7"):
        with doing("backward of micro-batch 3 of 8"):
            assert text() == "backward of micro-batch 3 of 8"
        assert text() == "step 7"
    assert text() is None


def test_the_work_inside_has_the_subject_of_the_work_around():
    with doing("reward code", "gsm8k-104"), doing("sandbox"):
        note("sandbox case 7")
        assert text() == "sandbox case 7 of gsm8k-104"


def test_a_note_without_any_work_does_nothing():
    note("sandbox case 7")
    assert text() is None


def test_of_two_threads_the_work_that_began_first_is_told():
    begun, told = threading.Event(), threading.Event()

    def work() -> None:
        with doing("the first"):
            begun.set()
            told.wait(timeout=60)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(timeout=60)
    with doing("the second"):
        assert text() == "the first"
        told.set()
        thread.join()
        assert text() == "the second"


def test_work_that_outlives_the_work_around_it_is_still_told():
    inner = doing("the forgotten thread")
    with doing("a call"):
        inner.__enter__()
    assert text() == "the forgotten thread"
    inner.__exit__(None, None, None)
    assert text() is None
