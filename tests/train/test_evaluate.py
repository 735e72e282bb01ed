"""Figures on held-out prompts, by hand."""

import math

import pytest

from rlframe.train.evaluate import figures_of, pass_at
from rlframe.types import Completion, Prompt, RolloutGroup, ScoredGroup, Verdict


def scored(scores: list[float | None], tokens: int = 4) -> ScoredGroup:
    """A group whose reward is half of what `math` says; `format` always says 1 and must not count as right."""
    completions = [
        Completion(token_ids=[1] * tokens, logprobs=[-0.5] * tokens, versions=[], text="", finish_reason="stop")
        for _ in scores
    ]
    verdicts = [
        Verdict(score=score, status="failed" if score is None else "scored", seconds=0.0, detail="") for score in scores
    ]
    always = [Verdict(score=1.0, status="scored", seconds=0.0, detail="") for _ in scores]
    prompt = Prompt(id="p", messages=[], token_ids=[1], reference="", task="math")
    return ScoredGroup(
        group=RolloutGroup.single_turn(prompt, completions),
        rewards=[None if score is None else score / 2 for score in scores],
        verdicts={"math": verdicts, "format": always},
    )


@pytest.mark.parametrize(
    "k, n, correct, chance",
    [
        (1, 4, 1, 1 / 4),
        (2, 4, 1, 1 / 2),  # 3 of the 6 pairs hold the right one
        (2, 4, 2, 5 / 6),  # 1 of the 6 pairs holds two wrong ones
        (3, 4, 2, 1.0),  # only two are wrong
        (4, 4, 0, 0.0),
        (4, 4, 1, 1.0),
        (10, 100, 10, 0.66952),  # Chen et al.'s product form: 1 - prod(1 - 10 / i for i in 91..100)
    ],
)
def test_the_chance_that_one_of_k_is_right(k, n, correct, chance):
    assert pass_at(k, n, correct) == pytest.approx(chance, abs=1e-5)


def test_one_right_of_four_and_none_of_four_is_an_eighth_at_1():
    figures = figures_of([scored([1.0, 0.0, 0.0, 0.0]), scored([0.0] * 4, tokens=8)], "math")
    assert figures == {"eval/pass@1": 0.125, "eval/pass@4": 0.5, "eval/reward": 0.0625, "eval/completion_tokens": 6.0}


def test_a_completion_is_right_at_the_full_score_of_the_named_reward():
    assert figures_of([scored([0.9, 0.9])], "math")["eval/pass@1"] == 0.0
    assert figures_of([scored([0.9, 0.9])], "format")["eval/pass@1"] == 1.0


def test_a_completion_without_a_verdict_is_neither_right_nor_wrong():
    figures = figures_of([scored([1.0, None]), scored([0.0, 0.0])], "math")
    assert figures["eval/pass@1"] == 0.5  # (1 of 1 + 0 of 2) / 2
    assert figures["eval/pass@2"] == 0.0  # only the second has two verdicts
    assert figures["eval/reward"] == pytest.approx(0.5 / 3)


def test_one_completion_a_prompt_has_no_pass_at_k():
    figures = figures_of([scored([1.0]), scored([0.0])], "math")
    assert figures["eval/pass@1"] == 0.5
    assert [name for name in figures if "pass" in name] == ["eval/pass@1"]


def test_pass_at_1_is_nan_where_every_verdict_failed():
    assert math.isnan(figures_of([scored([None, None])], "math")["eval/pass@1"])
