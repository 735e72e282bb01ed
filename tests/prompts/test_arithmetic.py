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


def test_a_slice_beyond_the_last_pair_is_refused():
    with pytest.raises(ValidationError, match=r"offset 80 \+ size 21 is more than the 100 pairs below 10"):
        arithmetic(offset=80, size=21)
