"""Several sources as one."""

import pytest
from pydantic import TypeAdapter

from rlframe.prompts import AnySource
from rlframe.prompts.base import in_order

SUMS = {"name": "arithmetic", "below": 10, "seed": 0, "offset": 0, "size": 3}
PUZZLES = {"name": "reasoning_gym", "family": "chain_sum", "params": {}, "seed": 0, "size": 2, "task": "puzzle"}


def mixture(**parts):
    return TypeAdapter(AnySource).validate_python({"name": "mixture", "parts": parts})


def test_a_mixture_holds_every_problem_of_every_part_once():
    problems = mixture(sums=SUMS, puzzles=PUZZLES).load()
    joined = [problems[index] for index in range(len(problems))]
    assert [problem.task for problem in joined] == ["math", "math", "math", "puzzle", "puzzle"]
    assert [problem.id.partition("/")[0] for problem in joined] == ["sums"] * 3 + ["puzzles"] * 2


def test_the_same_problem_in_two_parts_has_two_ids():
    problems = mixture(one=SUMS, two=SUMS).load()
    assert problems[0].messages == problems[3].messages
    assert len({problems[index].id for index in range(6)}) == 6


def test_problems_in_order_are_the_problems_by_index():
    problems = mixture(sums=SUMS, puzzles=PUZZLES).load()
    assert list(in_order(problems)) == [problems[index] for index in range(5)]


@pytest.mark.parametrize("index", [-1, 5])
def test_an_index_out_of_range_is_refused(index):
    with pytest.raises(IndexError):
        mixture(sums=SUMS, puzzles=PUZZLES).load()[index]


def test_an_error_in_a_part_names_its_path():
    with pytest.raises(ValueError, match=r"parts\.puzzles[\s\S]*family"):
        mixture(sums=SUMS, puzzles={**PUZZLES, "family": 3})
