"""The format reward: R1's structure, exactly."""

import pytest
from pydantic import ValidationError

from rlframe.reward.format import Format
from rlframe.types import Completion, Prompt

PROMPT = Prompt(id="p", messages=[], token_ids=[], reference="5", task="math")


def score(
    text: str, *, opened: bool = False, partial: bool = False, tags: tuple[str, str] = ("think", "answer")
) -> float:
    completion = Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop")
    think, answer = tags
    reward = Format(name="format", weight=1.0, think=think, answer=answer, opened=opened, partial=partial)
    return reward(PROMPT, completion)


@pytest.mark.parametrize(
    "text",
    [
        "<think>2 + 3</think><answer>5</answer>",
        "\n<think>\n2 + 3\n</think>\n\n<answer> 5 </answer>\n",
        "<think>is 2 < 3 > 1?</think> <answer>yes</answer>",
    ],
)
def test_thoughts_then_answer_score_one(text: str):
    assert score(text) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "<answer>5</answer>",
        "<think>2 + 3</think>5",
        "2 + 3</think><answer>5</answer>",
        "<think>2 + 3</think><answer>5",
        "<think> </think><answer>5</answer>",
        "<think>2 + 3</think><answer>\n</answer>",
        "<answer>5</answer><think>2 + 3</think>",
        "<think>2 + 3</think> so <answer>5</answer>",
        "Sure! <think>2 + 3</think><answer>5</answer>",
        "<think>2 + 3</think><answer>5</answer> I hope",
        "<think>2</think><think>3</think><answer>5</answer>",
        "<think>2 + 3</think><answer>5</answer><answer>6</answer>",
        "<think>2 <answer>4</answer></think><answer>5</answer>",
        "<think>2 + 3<answer></think>5</answer>",
        "<Think>2 + 3</Think><answer>5</answer>",
    ],
)
def test_anything_else_scores_zero(text: str):
    assert score(text) == 0.0


def test_a_million_tags_take_less_than_a_second():
    assert score("<think>" * 500_000 + "</think><answer>" * 500_000) == 0.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 + 3</think><answer>5</answer>", 1.0),
        ("\n2 + 3\n</think>\n<answer>5</answer>\n", 1.0),
        ("<think>2 + 3</think><answer>5</answer>", 0.0),  # the template wrote <think> already
        ("</think><answer>5</answer>", 0.0),
        ("2 + 3<answer>5</answer>", 0.0),
    ],
)
def test_with_opened_the_completion_starts_inside_the_thoughts(text: str, expected: float):
    assert score(text, opened=True) == expected


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>2 + 3</think><answer>5</answer>", 5),
        ("<think>2 + 3</think><answer>5</answer> I hope", 4),
        ("<think></think><answer></answer>", 4),
        ("<think>2 + 3</think><answer>5", 3),
        ("<think>2 + 3</think> 5", 2),
        ("<answer>5</answer><think>2 + 3</think>", 2),  # the answer tags come too early
        ("<think>2</think><think>3</think><answer>5</answer>", 2),  # a repeated tag earns nothing
        ("<think>2 + 3", 1),
        ("<think>" * 100, 0),
        ("5", 0),
    ],
)
def test_partial_credit_is_a_fifth_per_tag_and_one_for_the_structure(text: str, parts: int):
    assert score(text, partial=True) == pytest.approx(parts / 5)


@pytest.mark.parametrize(
    ("text", "parts"),
    [("2 + 3</think><answer>5</answer>", 4), ("2 + 3</think><answer>5", 2), ("2 + 3</think>5", 1), ("2 + 3", 0)],
)
def test_a_tag_that_the_template_wrote_earns_nothing(text: str, parts: int):
    assert score(text, partial=True, opened=True) == pytest.approx(parts / 4)


def test_the_config_names_the_tags():
    assert score("<reason>2 + 3</reason><final_answer>5</final_answer>", tags=("reason", "final_answer")) == 1.0
    assert score("<think>2 + 3</think><answer>5</answer>", tags=("reason", "final_answer")) == 0.0


@pytest.mark.parametrize("tags", [("think", "think"), ("<think>", "answer"), ("think", ""), ("think\n", "answer")])
def test_equal_or_malformed_tag_names_are_refused(tags: tuple[str, str]):
    with pytest.raises(ValidationError):
        score("5", tags=tags)
