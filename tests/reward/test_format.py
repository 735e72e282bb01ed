"""The format reward: R1's structure, exactly."""

import pytest

from rlframe.reward.format import Format
from rlframe.types import Completion, Prompt

PROMPT = Prompt(id="p", messages=[], token_ids=[], reference="5", task="math")


def score(text: str) -> float:
    completion = Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop")
    return Format(name="format", weight=1.0)(PROMPT, completion)


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
