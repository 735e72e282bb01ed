"""Figures of held-out sets, by hand."""

from collections.abc import Iterator

import pytest

from rlframe.reward import Reward, build
from rlframe.train.figures import MAX_COMPARISONS, consensus, figures_of, pass_at
from rlframe.types import Completion, FinishReason, Prompt, RolloutGroup, ScoredGroup, Verdict


@pytest.fixture(scope="module")
def math() -> Iterator[Reward]:
    settings = {"extract": ["answer"], "timeout_s": 3.0, "max_answer_chars": 100}
    reward = build({"name": "math", "weight": 1.0, **settings})
    yield reward
    reward.close()


FORMAT = build({"name": "format", "weight": 1.0, "think": "t", "answer": "a", "opened": False, "partial": False})


def completion(answer: str = "", tokens: int = 4, finish_reason: FinishReason = "stop") -> Completion:
    text = f"<answer>{answer}</answer>" if answer else "I do not know."
    return Completion(
        token_ids=[1] * tokens, logprobs=[-0.5] * tokens, versions=[], text=text, finish_reason=finish_reason
    )


def scored(scores: list[float | None], **settings) -> ScoredGroup:
    """A group whose reward is half of what `math` says; `format` always says 1 and must not count as right."""
    completions = [completion(**settings) for _ in scores]
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


def figures(groups: list[ScoredGroup], *tries: int, name: str = "math") -> dict[str, float]:
    """Figures without cons@n, by a reward without final answers."""
    return figures_of(groups, name, FORMAT, tries)


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
    groups = [scored([1.0, 0.0, 0.0, 0.0]), scored([0.0] * 4, tokens=8, finish_reason="length")]
    assert figures(groups, 1, 2, 4) == {
        "pass@1": 0.125, "pass@1_se": 0.125,  # of 1/4 and 0: sqrt(((1/8)^2 + (1/8)^2) / 1) / sqrt(2)
        "pass@2": 0.25, "pass@2_se": pytest.approx(0.25),  # of 1/2 and 0
        "pass@4": 0.5, "pass@4_se": 0.5,  # of 1 and 0
        "reward": 0.0625, "completion_tokens": 6.0, "truncated": 0.5,
    }  # fmt: skip


def test_completions_of_a_problem_do_not_shrink_the_standard_error():
    few = figures([scored([1.0]), scored([0.0]), scored([1.0]), scored([0.0])], 1)
    many = figures([scored([1.0] * 9), scored([0.0] * 9), scored([1.0] * 9), scored([0.0] * 9)], 1)
    assert few["pass@1_se"] == many["pass@1_se"] == pytest.approx((1 / 3) ** 0.5 / 2)


def test_a_completion_is_right_at_the_full_score_of_the_named_reward():
    assert figures([scored([0.9, 0.9])], 1)["pass@1"] == 0.0
    assert figures([scored([0.9, 0.9])], 1, name="format")["pass@1"] == 1.0


def test_a_completion_without_a_verdict_is_neither_right_nor_wrong():
    values = figures([scored([1.0, None]), scored([0.0, 0.0])], 1, 2)
    assert values["pass@1"] == 0.5  # (1 of 1 + 0 of 2) / 2
    assert values["pass@2"] == 0.0  # only the second has two verdicts
    assert values["reward"] == pytest.approx(0.5 / 3)


def test_a_figure_of_nothing_is_left_out():
    assert figures([scored([None, None])], 1, 2) == {"completion_tokens": 4.0, "truncated": 0.0}
    assert "pass@1_se" not in figures([scored([1.0, 0.0])], 1)  # one problem has no spread
    assert figures([], 1) == {}


@pytest.mark.parametrize(
    "right, wrong, chance",
    [
        (["5", "5"], ["6"], 1.0),
        (["5"], ["6", "6"], 0.0),
        (["5", "5"], ["7", "7", "9", ""], 0.5),  # 5 and 7 have two votes each
        (["5"], ["6", "7"], 1 / 3),
        (["5"], ["", "", ""], 1.0),  # without an answer there is no vote
        ([], ["6", "7"], 0.0),
        ([], ["", ""], 0.0),
        (["5", "5"], ["1/2", "0.5", "50\\%"], 0.0),  # three spellings of a half vote together
        (["5", "5"], [r"\sqrt{8}", r"2\sqrt{2}", "3"], 0.5),  # by math-verify
        (["5", "5"], ["seat", "east", "teas"], 1.0),  # three words
    ],
)
def test_the_chance_that_the_majority_is_right(math, right, wrong, chance):
    judged = [(completion(answer), True) for answer in right] + [(completion(answer), False) for answer in wrong]
    assert consensus(judged, math) == pytest.approx(chance)


def test_a_vote_over_many_wrong_answers_has_a_bounded_number_of_comparisons(math, monkeypatch):
    compared = []
    monkeypatch.setattr(type(math), "same_answer", lambda reward, one, other: compared.append((one, other)))
    judged = [(completion("5"), True), *((completion(str(number)), False) for number in range(10, 110))]
    assert consensus(judged, math) == pytest.approx(1 / 101)
    assert len(compared) == MAX_COMPARISONS == 200


def test_one_completion_a_prompt_has_no_majority(math):
    assert "cons@1" not in figures_of([scored([1.0])], "math", math, [1])
    groups = [scored([1.0, 0.0, 1.0], answer="5"), scored([0.0, 0.0, 0.0], answer="6")]
    values = figures_of(groups, "math", math, [1])
    assert (values["cons@3"], values["cons@3_se"]) == (0.5, 0.5)
    assert not [name for name in figures_of(groups, "format", FORMAT, [1]) if "cons" in name]
