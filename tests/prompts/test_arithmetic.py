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


def test_80_training_and_20_held_out_pairs_are_all_100_pairs_below_10_once_each():
    trained = [problem.id for problem in arithmetic().load()]
    held_out = [problem.id for problem in arithmetic(offset=80, size=20).load()]
    assert set(trained + held_out) == {f"arithmetic/{a}+{b}" for a in range(10) for b in range(10)}
    assert len(trained) == 80 and len(held_out) == 20


def test_the_same_settings_give_the_same_problems_and_another_seed_another_order():
    assert arithmetic().load() == arithmetic().load()
    assert arithmetic().load() != arithmetic(seed=2).load()


def test_more_problems_than_pairs_are_refused_with_their_number():
    with pytest.raises(ValidationError, match=r"offset 80 \+ size 21 is more than the 100 pairs below 10"):
        arithmetic(offset=80, size=21)
