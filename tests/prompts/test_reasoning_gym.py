"""Families of reasoning_gym as problems."""

import pytest

from rlframe.prompts import ReasoningGym


def chain_sum(**changes) -> ReasoningGym:
    params = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    fields = {"name": "reasoning_gym", "family": "chain_sum", "params": params, "seed": 0, "size": 5, "task": "math"}
    return ReasoningGym(**(fields | changes))


def test_a_chain_sum_of_two_digits_has_their_sum_as_reference():
    problems = chain_sum().load()
    assert len(problems) == 5
    for problem in (problems[index] for index in range(5)):
        expression = problem.messages[0]["content"].split(":")[1].removesuffix("=")
        assert problem.reference == str(eval(expression))
        assert problem.task == "math"


def test_the_same_seed_gives_the_same_problems():
    first, second = chain_sum(params={}).load(), chain_sum(params={}).load()
    assert [first[index] for index in range(5)] == [second[index] for index in range(5)]


def test_neighbouring_seeds_share_no_entry():
    seed_0, seed_1 = chain_sum(params={}).load(), chain_sum(params={}, seed=1).load()
    questions = [{problems[index].messages[0]["content"] for index in range(5)} for problems in (seed_0, seed_1)]
    assert not questions[0] & questions[1]


def test_an_unknown_family_is_refused_with_the_nearest_names():
    with pytest.raises(ValueError, match="reasoning_gym has no 'chain_sun'; did you mean chain_sum"):
        chain_sum(family="chain_sun").load()


def test_params_that_a_family_refuses_are_named_with_the_reason():
    with pytest.raises(ValueError, match=r"params: chain_sum refuses .*unexpected keyword argument 'terms'"):
        chain_sum(params={"terms": 3}).load()
    with pytest.raises(ValueError, match=r"params: chain_sum refuses .*min_terms must be positive"):
        chain_sum(params={"min_terms": 0}).load()


def test_a_problem_without_an_answer_is_refused():
    with pytest.raises(ValueError, match="rush_hour/0/0: the family rush_hour gives no answer"):
        chain_sum(family="rush_hour", params={}).load()[0]
