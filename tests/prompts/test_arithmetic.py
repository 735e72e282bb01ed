"""Sums as problems."""

import pytest
from pydantic import ValidationError

from rlframe.prompts import Arithmetic


def arithmetic(**changes) -> Arithmetic:
    return Arithmetic(**({"name": "arithmetic", "below": 10, "seed": 1, "offset": 0, "size": 80} | changes))


def test_the_reference_is_the_sum_of_the_question():
    problem = arithmetic().load()[0]
    a, b = map(int, problem.id.removeprefix("arithmetic/").split("+"))
    assert problem.messages == [{"role": "user", "content": f"What is {a} + {b}?"}]
    assert problem.reference == str(a + b)
    assert problem.task == "math"


def test_80_and_20_pairs_are_the_100_pairs_below_10_once_each():
    trained = [problem.id for problem in arithmetic().load()]
    held_out = [problem.id for problem in arithmetic(offset=80, size=20).load()]
    assert set(trained + held_out) == {f"arithmetic/{a}+{b}" for a in range(10) for b in range(10)}
    assert len(trained) == 80 and len(held_out) == 20


def test_settings_decide_the_problems_and_the_seed_their_order():
    assert arithmetic().load() == arithmetic().load()
    assert arithmetic().load() != arithmetic(seed=2).load()


def test_a_slice_beyond_the_last_sum_is_refused():
    with pytest.raises(ValidationError, match=r"offset 80 \+ size 21 is more than the 100 sums of 2 numbers below 10"):
        arithmetic(offset=80, size=21)


def test_a_sum_may_have_three_terms():
    problems = arithmetic(terms=3, below=4, size=64).load()
    assert len({problem.id for problem in problems}) == 64
    a, b, c = map(int, problems[0].id.removeprefix("arithmetic/").split("+"))
    assert problems[0].messages[0]["content"] == f"What is {a} + {b} + {c}?"
    assert problems[0].reference == str(a + b + c)


def test_more_sums_than_memory_holds_are_refused():
    with pytest.raises(ValidationError, match="8000000 sums of 3 numbers below 200 are more than 1000000"):
        arithmetic(terms=3, below=200)
