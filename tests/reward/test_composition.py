"""Composition: the rewards that score a prompt, and the sum of their verdicts."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rlframe.reward import Reward
from rlframe.reward.composition import check, combine, counted_scores, speaking, total
from rlframe.types import Completion, Problem, Prompt, RewardTerm, RolloutGroup, Verdict

PROMPT = Prompt(id="arithmetic/7", messages=[], token_ids=[], reference="5", task="math")
COMPLETION = Completion(token_ids=[1], logprobs=[-1.0], versions=[], text="5", finish_reason="stop")


class Term(Reward):
    def __call__(self, prompt: Prompt, completion: Completion) -> float:
        return 1.0

    def check(self, reference: str) -> None:
        if reference == "{":
            raise ValueError("cases: no JSON")


def term(weight: float, **composition: Any) -> Term:
    return Term(name="term", weight=weight, **composition)


def verdict(score: float | None) -> Verdict:
    return Verdict(score=score, status="failed" if score is None else "scored", seconds=0.0, detail="")


def problem(task: str, reference: str = "5") -> Problem:
    return Problem(id="train.jsonl:7", messages=[], reference=reference, task=task)


def reward_of(verdicts: dict[str, Verdict], terms: dict[str, Reward]) -> float | None:
    return total(counted_scores(verdicts, terms), terms)


def test_a_reward_is_the_weighted_sum_and_none_without_a_score():
    group = RolloutGroup.single_turn(PROMPT, [COMPLETION] * 3)
    verdicts = {
        "math": [verdict(1.0), verdict(0.0), verdict(1.0)],
        "length": [verdict(3.0), verdict(1.0), verdict(None)],
    }
    scored = combine(group, verdicts, {"math": term(2.0), "length": term(-0.5)})
    assert scored.rewards == [0.5, -0.5, None]  # 2·1 - 0.5·3, 2·0 - 0.5·1
    assert scored.verdicts == verdicts and scored.group is group
    assert scored.terms["math"] == RewardTerm(weight=2.0, scores=[1.0, 0.0, 0.0])  # the third has no reward
    assert scored.terms["length"] == RewardTerm(weight=-0.5, scores=[3.0, 1.0, 0.0])


def test_terms_hold_scores_after_clips_and_requirements():
    group = RolloutGroup.single_turn(PROMPT, [COMPLETION] * 2)
    verdicts = {"format": [verdict(1.0), verdict(0.5)], "length": [verdict(9.0), verdict(9.0)]}
    scored = combine(group, verdicts, {"format": term(1.0), "length": term(0.5, clip=[0.0, 2.0], requires=["format"])})
    assert scored.terms["length"].scores == [2.0, 0.0]
    assert scored.rewards == [2.0, 0.5]


def test_tokens_have_no_rewards_where_the_required_reward_is_below_1():
    group = RolloutGroup.single_turn(PROMPT, [COMPLETION] * 3)
    steps = [replace(verdict(0.5), token_rewards=np.array([1.0, 2.0], np.float32)) for _ in range(3)]
    verdicts = {"format": [verdict(1.0), verdict(0.0), verdict(1.0)], "steps": steps}
    scored = combine(group, verdicts, {"format": term(1.0), "steps": term(0.0, requires=["format"])})
    found = [scored.token_rewards(index) for index in range(3)]
    assert [None if each is None else each.tolist() for each in found] == [[1.0, 2.0], None, [1.0, 2.0]]
    assert scored.rewards == [1.0, 0.0, 1.0]
    assert steps[1].token_rewards is not None


def test_a_missing_verdict_is_an_error_that_names_prompt_and_reward():
    with pytest.raises(ValueError, match="prompt 'arithmetic/7': 1 verdicts of 'math' for 2 completions"):
        combine(RolloutGroup.single_turn(PROMPT, [COMPLETION] * 2), {"math": [verdict(1.0)]}, {"math": term(1.0)})


@pytest.mark.parametrize(("score", "counted"), [(-3.0, -0.5), (-0.25, -0.25), (0.75, 0.75), (9.0, 1.0)])
def test_a_score_is_clipped_before_it_is_weighted(score: float, counted: float):
    assert reward_of({"length": verdict(score)}, {"length": term(10.0, clip=[-0.5, 1.0])}) == 10 * counted


@pytest.mark.parametrize(
    ("shape", "accuracy", "reward"),
    [
        (1.0, 1.0, 1.2),
        (1.0, 0.0, 0.2),
        (0.0, 1.0, 0.0),
        (0.5, 1.0, 0.1),
        (0.0, None, 0.0),
        (1.0, None, None),
        (None, 1.0, None),
    ],
)
def test_accuracy_counts_only_in_the_right_format(shape: float | None, accuracy: float | None, reward: float | None):
    terms = {"format": term(0.2), "math": term(1.0, requires=["format"])}
    assert reward_of({"format": verdict(shape), "math": verdict(accuracy)}, terms) == reward


def test_a_reward_scores_its_tasks_and_without_tasks_every_task():
    terms = {"math": term(1.0, tasks=["math"]), "code": term(1.0, tasks=["code", "sql"]), "format": term(0.2)}
    scoring = {task: list(speaking(terms, task)) for task in ("math", "sql", "chat")}
    assert scoring == {"math": ["math", "format"], "sql": ["code", "format"], "chat": ["format"]}


def test_a_gate_that_does_not_score_a_task_is_open_for_that_task():
    terms = {"format": term(0.2, tasks=["math"]), "judge": term(1.0, requires=["format"])}
    assert reward_of({"judge": verdict(0.5)}, terms) == 0.5


def test_a_reward_for_a_task_that_no_problem_has_is_an_error():
    with pytest.raises(
        ValueError, match=r"reward\.terms.code.tasks: no problem has the task 'cod'; there are code, math"
    ):
        check([problem("math"), problem("code")], {"code": term(1.0, tasks=["cod"]), "all": term(1.0)})


def test_a_problem_whose_task_no_reward_scores_is_an_error():
    with pytest.raises(ValueError, match=r"problem train\.jsonl:7: no reward speaks on its task 'chat'"):
        check([problem("math"), problem("chat")], {"math": term(1.0, tasks=["math"])})


def test_a_useless_reference_is_an_error_that_names_the_problem():
    message = "problem train.jsonl:7: its reference is nothing that 'code' can use: cases: no JSON"
    with pytest.raises(ValueError, match=message):
        check([problem("code", reference="{")], {"code": term(1.0)})
    check([problem("math", reference="{"), problem("code")], {"code": term(1.0, tasks=["code"]), "math": LENIENT})


class Lenient(Term):
    def check(self, reference: str) -> None:
        pass


LENIENT = Lenient(name="lenient", weight=1.0)


@pytest.mark.parametrize("clip", [[1.0, 0.0], [0.0], [0.0, 1.0, 2.0]])
def test_a_clip_is_a_lower_and_an_upper_bound(clip: list[float]):
    with pytest.raises(ValueError, match="clip"):
        term(1.0, clip=clip)
